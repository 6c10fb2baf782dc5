package life

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
)

var deployments = appsv1.SchemeGroupVersion.WithResource("deployments")

// deployment has no replicas, so that nothing but its writer changes it much.
func deployment(name string) *appsv1.Deployment {
	replicas := int32(0)
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "c", Image: "hello-http:v1",
					Env: []corev1.EnvVar{{Name: "A", Value: "a"}},
				}}},
			},
		},
	}
}

// TestPatches sends each type of patch by each kind of client.
func TestPatches(t *testing.T) {
	ctx, client, namespace := setting(t)
	untyped, err := dynamic.NewForConfig(config(t))
	check(t, err)
	partial, err := metadata.NewForConfig(config(t))
	check(t, err)
	clients := map[string]func(string, types.PatchType, string, metav1.PatchOptions) error{
		"typed": func(name string, kind types.PatchType, patch string, options metav1.PatchOptions) error {
			_, err := client.AppsV1().Deployments(namespace).Patch(ctx, name, kind, []byte(patch), options)
			return err
		},
		"dynamic": func(name string, kind types.PatchType, patch string, options metav1.PatchOptions) error {
			_, err := untyped.Resource(deployments).Namespace(namespace).Patch(ctx, name, kind, []byte(patch), options)
			return err
		},
		"metadata": func(name string, kind types.PatchType, patch string, options metav1.PatchOptions) error {
			got, err := partial.Resource(deployments).Namespace(namespace).Patch(ctx, name, kind, []byte(patch), options)
			if err == nil && got.Name != name {
				return wanted(name, got)
			}
			return err
		},
	}
	for name, patch := range clients {
		t.Run(name, func(t *testing.T) {
			_, err := client.AppsV1().Deployments(namespace).Create(ctx, deployment(name), metav1.CreateOptions{})
			check(t, err)
			var none metav1.PatchOptions
			check(t, patch(name, types.JSONPatchType,
				`[{"op": "test", "path": "/spec/replicas", "value": 0}, {"op": "add", "path": "/metadata/labels/json", "value": "yes"}]`, none))
			err = patch(name, types.JSONPatchType, `[{"op": "test", "path": "/spec/replicas", "value": 7}]`, none)
			if !apierrors.IsInvalid(err) {
				t.Errorf("a test that fails: %v", err)
			}
			check(t, patch(name, types.MergePatchType, `{"metadata": {"labels": {"json": null, "merge": "yes"}}}`, none))
			// Containers merge by their names, variables by theirs.
			check(t, patch(name, types.StrategicMergePatchType,
				`{"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "b"}]}]}}}}`, none))
			check(t, patch(name, types.ApplyPatchType,
				`{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"apply": "yes"}}}`, metav1.PatchOptions{FieldManager: "patcher"}))

			got, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
			check(t, err)
			_, dropped := got.Labels["json"]
			if dropped || got.Labels["merge"] != "yes" || got.Labels["apply"] != "yes" || got.Labels["app"] != name {
				t.Errorf("%v", got.Labels)
			}
			container := got.Spec.Template.Spec.Containers[0]
			if container.Image != "hello-http:v1" || len(container.Env) != 2 {
				t.Errorf("%v", container)
			}
			if err := patch("absent", types.MergePatchType, `{}`, none); !apierrors.IsNotFound(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// applied is what a manager says of the Deployment.
func applied(namespace string, replicas int32, note string) *appsac.DeploymentApplyConfiguration {
	labels := map[string]string{"app": "applied"}
	return appsac.Deployment("applied", namespace).
		WithAnnotations(map[string]string{"note": note}).
		WithSpec(appsac.DeploymentSpec().
			WithReplicas(replicas).
			WithSelector(metaac.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(coreac.PodTemplateSpec().WithLabels(labels).
				WithSpec(coreac.PodSpec().WithContainers(coreac.Container().WithName("c").WithImage("hello-http:v1")))))
}

func TestAppliersConflict(t *testing.T) {
	ctx, client, namespace := setting(t)
	typed := client.AppsV1().Deployments(namespace)
	untyped, err := dynamic.NewForConfig(config(t))
	check(t, err)
	one := metav1.ApplyOptions{FieldManager: "one"}
	two := metav1.ApplyOptions{FieldManager: "two"}
	_, err = typed.Apply(ctx, applied(namespace, 0, "mine"), one)
	check(t, err)

	conflicts := func(err error) {
		t.Helper()
		var status *apierrors.StatusError
		if !errors.As(err, &status) || !apierrors.IsConflict(err) {
			t.Fatalf("no conflict: %v", err)
		}
		var fields []string
		for _, cause := range status.ErrStatus.Details.Causes {
			if cause.Type != metav1.CauseTypeFieldManagerConflict || !strings.Contains(cause.Message, `conflict with "one"`) {
				t.Errorf("%v", cause)
			}
			fields = append(fields, cause.Field)
		}
		if strings.Join(fields, " ") != ".metadata.annotations.note .spec.replicas" {
			t.Errorf("%v", fields)
		}
	}
	other := applied(namespace, 1, "theirs")
	_, err = typed.Apply(ctx, other, two)
	conflicts(err)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(other)
	check(t, err)
	_, err = untyped.Resource(deployments).Namespace(namespace).Apply(ctx, "applied", &unstructured.Unstructured{Object: content}, two)
	conflicts(err)

	// A dry run may insist, and nothing changes.
	forced, dry := two, two
	forced.Force, dry.Force, dry.DryRun = true, true, []string{metav1.DryRunAll}
	_, err = typed.Apply(ctx, other, dry)
	check(t, err)
	got, err := typed.Get(ctx, "applied", metav1.GetOptions{})
	check(t, err)
	if *got.Spec.Replicas != 0 {
		t.Fatalf("%d replicas", *got.Spec.Replicas)
	}
	got, err = typed.Apply(ctx, other, forced)
	check(t, err)
	if *got.Spec.Replicas != 1 || got.Annotations["note"] != "theirs" {
		t.Fatalf("%v", got)
	}
	lost, err := appsac.ExtractDeployment(got, "one")
	check(t, err)
	owned, err := appsac.ExtractDeployment(got, "two")
	check(t, err)
	if lost.Spec.Replicas != nil || *owned.Spec.Replicas != 1 || *lost.Spec.Template.Spec.Containers[0].Image != "hello-http:v1" {
		text, _ := json.Marshal(got.ManagedFields)
		t.Fatalf("%s", text)
	}

	// What was sent as the whole goes when it is dropped by all who own it.
	bare := applied(namespace, 1, "theirs")
	bare.Annotations = nil
	got, err = typed.Apply(ctx, bare, forced)
	check(t, err)
	if _, kept := got.Annotations["note"]; kept {
		t.Fatalf("%v", got.Annotations)
	}
}
