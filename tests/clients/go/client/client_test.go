// Package client runs client-go over its wire formats against a server: what a typed client
// writes, gets, lists and watches in protobuf is what JSON shows.
//
//	KUBECONFIG=$(coracle kubeconfig --path) go test -C tests/clients/go -count=1 ./client
package client

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
	openapi "k8s.io/kube-openapi/pkg/util/proto"
)

const patience = 20 * time.Second

// formats are the media types that clients send and accept, and what answers must be of.
var formats = []string{runtime.ContentTypeProtobuf, runtime.ContentTypeCBOR, runtime.ContentTypeJSON}

func TestMain(m *testing.M) {
	// CBOR is a feature of clients that is off by default.
	for _, feature := range []string{"ClientsAllowCBOR", "ClientsPreferCBOR"} {
		os.Setenv("KUBE_FEATURE_"+feature, "true")
	}
	os.Exit(m.Run())
}

func config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(t, err)
	config.QPS, config.Burst = 1000, 1000
	return config
}

// typed is a client that sends and accepts a format and nothing else.
func typed(t *testing.T, format string) *kubernetes.Clientset {
	t.Helper()
	config := config(t)
	config.ContentType, config.AcceptContentTypes = format, format
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return expect{t, format, next} })
	client, err := kubernetes.NewForConfig(config)
	check(t, err)
	return client
}

// expect sees that answers are in the format that was asked for.
type expect struct {
	t      *testing.T
	format string
	next   http.RoundTripper
}

func (e expect) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := e.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	got := response.Header.Get("Content-Type")
	wanted := strings.HasPrefix(got, e.format) || (e.format == runtime.ContentTypeCBOR && got == runtime.ContentTypeCBORSequence)
	if !wanted {
		e.t.Errorf("%s %s: the answer is %s, not %s", request.Method, request.URL.Path, got, e.format)
	}
	return response, nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPods(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			pods, plain := typed(t, format).CoreV1().Pods("default"), typed(t, runtime.ContentTypeJSON).CoreV1().Pods("default")
			grace := int64(0)
			now := metav1.DeleteOptions{GracePeriodSeconds: &grace}
			events, err := pods.Watch(ctx, metav1.ListOptions{LabelSelector: "test=pods"})
			check(t, err)
			defer events.Stop()
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "wire-", Labels: map[string]string{"test": "pods"}},
				Spec: corev1.PodSpec{
					// Nobody but this test writes it.
					SchedulerName: "nobody",
					Volumes:       []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
					Containers: []corev1.Container{{
						Name: "c", Image: "app:v1",
						Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
							"memory": resource.MustParse("64Mi"), "cpu": resource.MustParse("250m"),
						}},
						LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
							HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")},
						}},
						Ports:        []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
						VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}},
					}},
				},
			}
			created, err := pods.Create(ctx, pod, metav1.CreateOptions{})
			check(t, err)
			defer pods.Delete(context.Background(), created.Name, now)
			same(t, plain, ctx, created)
			event(t, events, watch.Added, created)

			created.Annotations = map[string]string{"a": "b"}
			updated, err := pods.Update(ctx, created, metav1.UpdateOptions{})
			check(t, err)
			same(t, plain, ctx, updated)
			event(t, events, watch.Modified, updated)
			if _, err = pods.Update(ctx, created, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				t.Fatalf("no conflict: %v", err)
			}

			list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "test=pods"})
			check(t, err)
			if len(list.Items) != 1 || list.ResourceVersion == "" {
				t.Fatalf("listed %d, version %q", len(list.Items), list.ResourceVersion)
			}
			list.Items[0].TypeMeta = updated.TypeMeta
			equal(t, &list.Items[0], updated)

			check(t, pods.Delete(ctx, updated.Name, now))
			if gone := next(t, events); gone.Type != watch.Deleted {
				t.Fatalf("%v instead of a deletion", gone)
			}
			if _, err = pods.Get(ctx, updated.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Fatalf("it is still there: %v", err)
			}
		})
	}
}

func same(t *testing.T, plain interface {
	Get(context.Context, string, metav1.GetOptions) (*corev1.Pod, error)
}, ctx context.Context, pod *corev1.Pod) {
	t.Helper()
	got, err := plain.Get(ctx, pod.Name, metav1.GetOptions{})
	check(t, err)
	equal(t, got, pod)
}

func equal(t *testing.T, got, want *corev1.Pod) {
	t.Helper()
	got.TypeMeta, want.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
	if !apiequality.Semantic.DeepEqual(got, want) {
		t.Fatalf("got\n%v\nwant\n%v", got, want)
	}
}

func next(t *testing.T, events watch.Interface) watch.Event {
	t.Helper()
	select {
	case event, ok := <-events.ResultChan():
		if !ok {
			t.Fatal("the watch ended")
		}
		return event
	case <-time.After(patience):
		t.Fatal("no event in time")
	}
	return watch.Event{}
}

func event(t *testing.T, events watch.Interface, kind watch.EventType, pod *corev1.Pod) {
	t.Helper()
	event := next(t, events)
	got, ok := event.Object.(*corev1.Pod)
	if !ok || event.Type != kind {
		t.Fatalf("%v of %T instead of %v", event.Type, event.Object, kind)
	}
	equal(t, got.DeepCopy(), pod.DeepCopy())
}

func TestOtherKinds(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			client, plain := typed(t, format), typed(t, runtime.ContentTypeJSON)

			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "wire-"}, Data: map[string][]byte{"k": {0, 255, 'a'}, "e": {}}}
			secret, err := client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{})
			check(t, err)
			defer client.CoreV1().Secrets("default").Delete(context.Background(), secret.Name, metav1.DeleteOptions{})
			got, err := plain.CoreV1().Secrets("default").Get(ctx, secret.Name, metav1.GetOptions{})
			check(t, err)
			if string(got.Data["k"]) != "\x00\xffa" {
				t.Fatalf("%q", got.Data)
			}

			replicas := int32(2)
			labels := map[string]string{"app": "wire"}
			deployment := &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "wire-"},
				Spec: appsv1.DeploymentSpec{
					Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}},
				},
			}
			deployments := client.AppsV1().Deployments("default")
			deployment, err = deployments.Create(ctx, deployment, metav1.CreateOptions{})
			check(t, err)
			defer deployments.Delete(context.Background(), deployment.Name, metav1.DeleteOptions{})
			if deployment.Spec.Strategy.RollingUpdate.MaxSurge.StrVal != "25%" {
				t.Fatalf("defaults: %v", deployment.Spec.Strategy)
			}
			// The Deployment's controller may write meanwhile.
			check(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				scale, err := deployments.GetScale(ctx, deployment.Name, metav1.GetOptions{})
				check(t, err)
				scale.Spec.Replicas = 3
				scale, err = deployments.UpdateScale(ctx, deployment.Name, scale, metav1.UpdateOptions{})
				if err == nil && scale.Spec.Replicas != 3 {
					t.Fatalf("%v", scale)
				}
				return err
			}))

			at := metav1.NewMicroTime(time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC))
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{GenerateName: "wire-"}, Spec: coordinationv1.LeaseSpec{RenewTime: &at}}
			leases := client.CoordinationV1().Leases("default")
			lease, err = leases.Create(ctx, lease, metav1.CreateOptions{})
			check(t, err)
			defer leases.Delete(context.Background(), lease.Name, metav1.DeleteOptions{})
			if !lease.Spec.RenewTime.Equal(&at) {
				t.Fatalf("%v", lease.Spec.RenewTime)
			}
			namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
			check(t, err)
			if len(namespaces.Items) < 4 {
				t.Fatalf("%d namespaces", len(namespaces.Items))
			}
		})
	}
}

func TestMetadataIsListedInProtobuf(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	config := config(t)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return expect{t, runtime.ContentTypeProtobuf, next}
	})
	// The metadata client asks for protobuf first by itself.
	client, err := metadata.NewForConfig(config)
	check(t, err)
	list, err := client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).List(ctx, metav1.ListOptions{})
	check(t, err)
	if len(list.Items) < 4 || list.Items[0].Name == "" {
		t.Fatalf("%v", list)
	}
}

func TestDiscoveryAndOpenAPI(t *testing.T) {
	config := config(t)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := discovery.NewDiscoveryClientForConfig(config)
	check(t, err)
	_, resources, err := client.ServerGroupsAndResources()
	check(t, err)
	if len(resources) < 5 {
		t.Fatalf("%d group-versions", len(resources))
	}
	paths, err := client.OpenAPIV3().Paths()
	check(t, err)
	if document, err := paths["apis/apps/v1"].Schema(runtime.ContentTypeJSON); err != nil || len(document) < 1000 {
		t.Fatalf("%d bytes: %v", len(document), err)
	}
	// Asked for in protobuf, whatever the client's own format is.
	v2, err := client.OpenAPISchema()
	check(t, err)
	schemas := map[string]*openapi_v2.Schema{}
	for _, named := range v2.Definitions.AdditionalProperties {
		schemas[named.Name] = named.Value
	}
	if len(schemas) < 100 || len(v2.Paths.Path) < 50 {
		t.Fatalf("%d definitions, %d paths", len(schemas), len(v2.Paths.Path))
	}
	pod := schemas["io.k8s.api.core.v1.Pod"]
	kinds := map[string]string{}
	for _, extension := range pod.VendorExtension {
		kinds[extension.Name] = extension.Value.Yaml
	}
	if !strings.Contains(kinds["x-kubernetes-group-version-kind"], "Pod") || pod.Type.Value[0] != "object" {
		t.Fatalf("%v", pod)
	}
	// The models that kubectl makes of it: every reference leads somewhere.
	if _, err := openapi.NewOpenAPIData(v2); err != nil {
		t.Fatal(err)
	}
}
