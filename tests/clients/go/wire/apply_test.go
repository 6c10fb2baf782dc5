package wire

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"reflect"
	"sort"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
)

// untimed is the managed fields of an object, without times and in one order.
func untimed(object map[string]any) []string {
	entries, _, _ := unstructured.NestedSlice(object, "metadata", "managedFields")
	lines := []string{}
	for _, entry := range entries {
		fields := entry.(map[string]any)
		delete(fields, "time")
		line, _ := json.Marshal(fields)
		lines = append(lines, string(line))
	}
	sort.Strings(lines)
	return lines
}

// sorted is the lines of an error in one order: those who conflict come in any.
func sorted(err error) string {
	lines := strings.Split(err.Error(), "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// TestWritesDoWithManagedFieldsWhatGoDoes draws histories of an object: who applies what, and who
// updates it. After each step object and managers are alike.
func TestWritesDoWithManagedFieldsWhatGoDoes(t *testing.T) {
	ours := start(t)
	r := rand.New(rand.NewSource(number("SEED", 1)))
	converter := applyconfigurations.NewTypeConverter(scheme.Scheme)
	kinds := []struct {
		gvk schema.GroupVersionKind
		of  any
	}{
		{corev1.SchemeGroupVersion.WithKind("Pod"), corev1.Pod{}},
		{corev1.SchemeGroupVersion.WithKind("Service"), corev1.Service{}},
		{corev1.SchemeGroupVersion.WithKind("ServiceAccount"), corev1.ServiceAccount{}},
		{corev1.SchemeGroupVersion.WithKind("ConfigMap"), corev1.ConfigMap{}},
	}
	taken, refused := 0, 0
	for range 50 * number("ROUNDS", 20) {
		kind := kinds[r.Intn(len(kinds))]
		known := scheme.Scheme
		manager, err := managedfields.NewDefaultFieldManager(converter, known, known, known, kind.gvk, kind.gvk.GroupVersion(), "", nil)
		check(t, err)
		of := reflect.TypeOf(kind.of)
		object := func() map[string]any {
			object := structure(r, of, 0).(map[string]any)
			object["apiVersion"], object["kind"] = kind.gvk.GroupVersion().String(), kind.gvk.Kind
			metadata, _ := object["metadata"].(map[string]any)
			if metadata == nil {
				metadata = map[string]any{}
				object["metadata"] = metadata
			}
			// What the server says of an object, and whoever asks to forget its managers.
			delete(metadata, "uid")
			return object
		}
		// An object as its type has it: with all fields that are always there.
		typed := func(v any) runtime.Object {
			data, err := json.Marshal(v)
			check(t, err)
			object := reflect.New(of).Interface().(runtime.Object)
			check(t, json.Unmarshal(data, object))
			object.GetObjectKind().SetGroupVersionKind(kind.gvk)
			return object
		}
		plain := func(object runtime.Object) map[string]any {
			data, err := json.Marshal(object)
			check(t, err)
			return value(t, data).(map[string]any)
		}
		live := plain(typed(map[string]any{}))
		for range 1 + r.Intn(5) {
			who, force := []string{"x", "y", "z"}[r.Intn(3)], r.Intn(2) == 0
			drawn, err := json.Marshal(object())
			check(t, err)
			written := value(t, drawn).(map[string]any)
			applies := r.Intn(3) > 0
			if !applies {
				written = plain(typed(written))
			}
			step := map[string]any{"live": live, "object": written, "manager": who, "force": force, "apply": applies}
			body, err := json.Marshal(step)
			check(t, err)
			var theirs runtime.Object
			var wrong error
			if applies {
				config := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(written)}
				theirs, wrong = manager.Apply(typed(live), config, who, force)
			} else {
				// Who updates an object keeps its managers.
				update := typed(written)
				before, err := meta.Accessor(typed(live))
				check(t, err)
				after, err := meta.Accessor(update)
				check(t, err)
				after.SetManagedFields(before.GetManagedFields())
				theirs, wrong = manager.Update(typed(live), update, who)
			}
			answer, err := ours.do('a', body)
			switch {
			// An item of which nothing is left, its key neither, has empty fields to Go.
			case wrong == nil && err != nil && strings.Contains(err.Error(), "may not have a null element"):
				continue
			case wrong != nil && err != nil:
				refused++
				if strings.HasPrefix(wrong.Error(), "Apply failed") && sorted(wrong) != sorted(err) {
					t.Fatalf("%s: %v; by Go %v", body, err, wrong)
				}
				continue
			case (wrong == nil) != (err == nil):
				t.Fatalf("%s: %s, %v; by Go %v", body, answer, err, wrong)
			}
			want, got := plain(theirs), map[string]any{}
			check(t, json.Unmarshal(answer, &got))
			got = plain(typed(got))
			if ours, theirs := untimed(got), untimed(want); !reflect.DeepEqual(ours, theirs) {
				t.Fatalf("%s: managers %s; by Go %s", body, ours, theirs)
			}
			live = runtime.DeepCopyJSON(want)
			for _, object := range []map[string]any{got, want} {
				unstructured.RemoveNestedField(object, "metadata", "managedFields")
			}
			if found := differ(present(got), present(want), ""); found != "" {
				t.Fatalf("%s: %s\n%v by Go %v", body, found, got, want)
			}
			taken++
		}
	}
	t.Log(fmt.Sprintf("%d writes are taken, %d refused", taken, refused))
	if taken < 1000 || refused < 100 {
		t.Errorf("only %d writes were taken, and %d refused", taken, refused)
	}
}
