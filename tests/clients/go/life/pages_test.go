package life

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/pager"
)

const (
	all  = 25
	page = 10
)

// pages reads a list to its end, and sees that its pages are of one revision.
func pages(t *testing.T, list func(metav1.ListOptions) (runtime.Object, error), between func()) []string {
	t.Helper()
	var names []string
	revision := ""
	options := metav1.ListOptions{Limit: page}
	for {
		object, err := list(options)
		check(t, err)
		got, err := meta.ListAccessor(object)
		check(t, err)
		check(t, meta.EachListItem(object, func(item runtime.Object) error {
			named, err := meta.Accessor(item)
			names = append(names, named.GetName())
			return err
		}))
		if revision != "" && got.GetResourceVersion() != revision {
			t.Errorf("a page is of revision %s, not %s", got.GetResourceVersion(), revision)
		}
		revision = got.GetResourceVersion()
		if got.GetContinue() == "" {
			return names
		}
		left := got.GetRemainingItemCount()
		if left == nil || *left != int64(all-len(names)) {
			t.Errorf("after %d items %v remain", len(names), left)
		}
		options.Continue = got.GetContinue()
		between()
	}
}

func TestListsComeInPages(t *testing.T) {
	ctx, client, namespace := setting(t)
	secrets := client.CoreV1().Secrets(namespace)
	var names []string
	for number := range all {
		name := fmt.Sprintf("page-%02d", number)
		names = append(names, name)
		_, err := secrets.Create(ctx, secret(name, ""), metav1.CreateOptions{})
		check(t, err)
	}
	untyped, err := dynamic.NewForConfig(config(t))
	check(t, err)
	partial, err := metadata.NewForConfig(config(t))
	check(t, err)
	resource := corev1.SchemeGroupVersion.WithResource("secrets")
	clients := map[string]func(metav1.ListOptions) (runtime.Object, error){
		"typed": func(options metav1.ListOptions) (runtime.Object, error) {
			return secrets.List(ctx, options)
		},
		"dynamic": func(options metav1.ListOptions) (runtime.Object, error) {
			return untyped.Resource(resource).Namespace(namespace).List(ctx, options)
		},
		"metadata": func(options metav1.ListOptions) (runtime.Object, error) {
			return partial.Resource(resource).Namespace(namespace).List(ctx, options)
		},
	}
	for name, list := range clients {
		t.Run(name, func(t *testing.T) {
			// What comes after the first page was read is not in the others.
			late := secret("page-99", "")
			got := pages(t, list, func() { secrets.Create(ctx, late, metav1.CreateOptions{}) })
			check(t, secrets.Delete(ctx, late.Name, metav1.DeleteOptions{}))
			if !slices.Equal(got, names) {
				t.Fatalf("%v", got)
			}
		})
	}
	t.Run("pager", func(t *testing.T) {
		var got []string
		pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return secrets.List(ctx, options)
		})
		pages.PageSize = page
		check(t, pages.EachListItem(ctx, metav1.ListOptions{}, func(item runtime.Object) error {
			got = append(got, item.(*corev1.Secret).Name)
			return nil
		}))
		if !slices.Equal(got, names) {
			t.Fatalf("%v", got)
		}
	})
	t.Run("through a restart", func(t *testing.T) {
		got := pages(t, clients["typed"], func() { disturb(t, "restart") })
		if !slices.Equal(got, names) {
			t.Fatalf("%v", got)
		}
	})
}
