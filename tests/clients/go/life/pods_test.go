package life

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
)

func pod(name, image string, policy corev1.RestartPolicy, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			RestartPolicy: policy,
			Containers:    []corev1.Container{{Name: "c", Image: image, Args: args}},
		},
	}
}

// TestScale scales what it only knows the resource of, as autoscalers do.
func TestScale(t *testing.T) {
	ctx, client, namespace := setting(t)
	_, err := client.AppsV1().Deployments(namespace).Create(ctx, deployment("scaled"), metav1.CreateOptions{})
	check(t, err)
	found, err := discovery.NewDiscoveryClientForConfig(config(t))
	check(t, err)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"})
	check(t, err)
	if mapping.Resource != deployments {
		t.Fatalf("%v", mapping)
	}
	scales, err := scale.NewForConfig(config(t), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(found))
	check(t, err)
	ours := scales.Scales(namespace)
	var old *autoscalingv1.Scale
	// The Deployment's controller may write meanwhile.
	check(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		old, err = ours.Get(ctx, deployments.GroupResource(), "scaled", metav1.GetOptions{})
		check(t, err)
		if old.Spec.Replicas != 0 || old.Status.Selector != "app=scaled" {
			t.Fatalf("%v", old)
		}
		old.Spec.Replicas = 1
		_, err = ours.Update(ctx, deployments.GroupResource(), old, metav1.UpdateOptions{})
		return err
	}))
	_, err = ours.Update(ctx, deployments.GroupResource(), old, metav1.UpdateOptions{})
	if !apierrors.IsConflict(err) {
		t.Fatalf("an old scale: %v", err)
	}
	ready := func(replicas int32) {
		t.Helper()
		eventually(t, "replicas", func() error {
			got, err := client.AppsV1().Deployments(namespace).Get(ctx, "scaled", metav1.GetOptions{})
			if err == nil && got.Status.ReadyReplicas != replicas {
				err = wanted(replicas, got.Status)
			}
			return err
		})
	}
	ready(1)
	_, err = ours.Patch(ctx, deployments, "scaled", types.MergePatchType, []byte(`{"spec": {"replicas": 2}}`), metav1.PatchOptions{})
	check(t, err)
	ready(2)
}

func TestEvictionsHeedBudgets(t *testing.T) {
	ctx, client, namespace := setting(t)
	pods := client.CoreV1().Pods(namespace)
	_, err := pods.Create(ctx, pod("guarded", "hello-http:v1", corev1.RestartPolicyAlways), metav1.CreateOptions{})
	check(t, err)
	one := intstr.FromInt32(1)
	budgets := client.PolicyV1().PodDisruptionBudgets(namespace)
	_, err = budgets.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &one,
			Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}},
		},
	}, metav1.CreateOptions{})
	check(t, err)
	eventually(t, "a healthy Pod in the budget", func() error {
		got, err := budgets.Get(ctx, "guard", metav1.GetOptions{})
		if err == nil && got.Status.CurrentHealthy != 1 {
			err = wanted(1, got.Status)
		}
		return err
	})
	now := int64(0)
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: "guarded", Namespace: namespace},
		DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &now},
	}
	err = pods.EvictV1(ctx, eviction)
	var status *apierrors.StatusError
	if !apierrors.IsTooManyRequests(err) || !errors.As(err, &status) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		t.Fatalf("the budget allowed it: %v", err)
	}
	check(t, budgets.Delete(ctx, "guard", metav1.DeleteOptions{}))
	check(t, client.PolicyV1().Evictions(namespace).Evict(ctx, eviction))
	eventually(t, "the end of the Pod", func() error {
		got, err := pods.Get(ctx, "guarded", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%v, %v", got.Status.Phase, err)
	})
}

func TestEventsAndLogs(t *testing.T) {
	ctx, client, namespace := setting(t)
	pods := client.CoreV1().Pods(namespace)
	made, err := pods.Create(ctx, pod("batch", "batch-hello:v1", corev1.RestartPolicyNever, "Ada"), metav1.CreateOptions{})
	check(t, err)
	eventually(t, "the log", func() error {
		log, err := pods.GetLogs("batch", &corev1.PodLogOptions{}).DoRaw(ctx)
		if err == nil && string(log) != "Hello, Ada\n" {
			err = wanted("a greeting", string(log))
		}
		return err
	})

	// Each recorder joins what is said twice in its own way: a count, a series.
	older := record.NewBroadcaster(record.WithContext(ctx))
	defer older.Shutdown()
	older.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	recorder := older.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "life"})
	newer := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer newer.Shutdown()
	check(t, newer.StartRecordingToSinkWithContext(ctx))
	serial := newer.NewRecorder(scheme.Scheme, "coracle.dev/life")
	for _, expected := range [][]string{{"Scheduled", "Started", "Told", "Sung"}, {"Told twice", "Sung twice"}} {
		recorder.Event(made, corev1.EventTypeNormal, "Told", "an old story")
		serial.Eventf(made, nil, corev1.EventTypeWarning, "Sung", "Singing", "a new song")
		eventually(t, "the events", func() error {
			list, err := client.CoreV1().Events(namespace).Search(scheme.Scheme, made)
			if err != nil {
				return err
			}
			said := map[string]bool{}
			for _, event := range list.Items {
				said[event.Reason] = true
				if event.Count == 2 || event.Series != nil && event.Series.Count == 2 {
					said[event.Reason+" twice"] = true
				}
			}
			for _, reason := range expected {
				if !said[reason] {
					return wanted(reason, said)
				}
			}
			return nil
		})
	}
	list, err := client.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=Sung,type=Warning"})
	check(t, err)
	if len(list.Items) != 1 || !strings.Contains(list.Items[0].Note, "new song") || list.Items[0].Regarding.UID != made.UID {
		t.Fatalf("%v", list.Items)
	}
}
