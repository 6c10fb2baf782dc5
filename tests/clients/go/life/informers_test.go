package life

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// tally counts what an informer told of each object.
type tally struct {
	mutex          sync.Mutex
	added, deleted map[string]int
}

func (t *tally) count(counts map[string]int, object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	named, err := meta.Accessor(object)
	if err != nil {
		panic(err)
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	counts[named.GetName()]++
}

func follow(informer cache.SharedIndexInformer) *tally {
	tally := &tally{added: map[string]int{}, deleted: map[string]int{}}
	informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { tally.count(tally.added, object) },
		DeleteFunc: func(object any) { tally.count(tally.deleted, object) },
	})
	return tally
}

// cached are the versions of all objects of an informer.
func cached(informer cache.SharedIndexInformer) map[string]string {
	versions := map[string]string{}
	for _, object := range informer.GetStore().List() {
		named, err := meta.Accessor(object)
		if err != nil {
			panic(err)
		}
		versions[named.GetName()] = named.GetResourceVersion()
	}
	return versions
}

func TestInformersComeThroughDisconnects(t *testing.T) {
	ctx, client, namespace := setting(t)
	secrets := client.CoreV1().Secrets(namespace)
	resource := corev1.SchemeGroupVersion.WithResource("secrets")
	untyped, err := dynamic.NewForConfig(config(t))
	check(t, err)
	partial, err := metadata.NewForConfig(config(t))
	check(t, err)

	typedFactory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	untypedFactory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(untyped, 0, namespace, nil)
	partialFactory := metadatainformer.NewFilteredSharedInformerFactory(partial, 0, namespace, nil)
	following := map[string]cache.SharedIndexInformer{
		"typed":    typedFactory.Core().V1().Secrets().Informer(),
		"dynamic":  untypedFactory.ForResource(resource).Informer(),
		"metadata": partialFactory.ForResource(resource).Informer(),
	}
	tallies := map[string]*tally{}
	for name, informer := range following {
		tallies[name] = follow(informer)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	typedFactory.Start(running.Done())
	untypedFactory.Start(running.Done())
	partialFactory.Start(running.Done())

	// What changes around each disturbance arrives everywhere.
	for round, how := range []string{"", "cut", "restart", "cut"} {
		create := func(name string) {
			_, err := secrets.Create(ctx, secret(fmt.Sprintf("%s-%d", name, round), "0"), metav1.CreateOptions{})
			check(t, err)
		}
		create("kept")
		create("lost")
		if how != "" {
			disturb(t, how)
		}
		create("late")
		check(t, secrets.Delete(ctx, fmt.Sprintf("lost-%d", round), metav1.DeleteOptions{}))
		_, err := secrets.Update(ctx, secret("kept-0", fmt.Sprint(round)), metav1.UpdateOptions{})
		check(t, err)
		list, err := secrets.List(ctx, metav1.ListOptions{})
		check(t, err)
		truth := map[string]string{}
		for _, item := range list.Items {
			truth[item.Name] = item.ResourceVersion
		}
		for name, informer := range following {
			eventually(t, fmt.Sprintf("the %s informer after %q", name, how), func() error {
				if got := cached(informer); !maps.Equal(got, truth) {
					return wanted(truth, got)
				}
				return nil
			})
		}
	}
	for name, tally := range tallies {
		eventually(t, "the handlers of the "+name+" informer", func() error {
			tally.mutex.Lock()
			defer tally.mutex.Unlock()
			for object, times := range tally.added {
				if times != 1 {
					t.Fatalf("the %s informer added %s %d times", name, object, times)
				}
			}
			if len(tally.added) < 8 || !maps.Equal(tally.deleted, onlyLost(tally.added)) {
				return fmt.Errorf("added %v, deleted %v", tally.added, tally.deleted)
			}
			return nil
		})
	}
}

// onlyLost are the deletions that belong to what was added: an object may come and go unseen.
func onlyLost(added map[string]int) map[string]int {
	lost := map[string]int{}
	for name := range added {
		if name[:4] == "lost" {
			lost[name] = 1
		}
	}
	return lost
}

// TestARetriedWatchMissesNothing resumes a watch after each disturbance from where it was.
func TestARetriedWatchMissesNothing(t *testing.T) {
	ctx, client, namespace := setting(t)
	secrets := client.CoreV1().Secrets(namespace)
	before, err := secrets.List(ctx, metav1.ListOptions{})
	check(t, err)
	events, err := watchtools.NewRetryWatcherWithContext(ctx, before.ResourceVersion, retried(client, namespace))
	check(t, err)
	defer events.Stop()
	var made []string
	for round, how := range []string{"cut", "restart", "cut"} {
		for number := range 10 {
			if number == 5 {
				disturb(t, how)
			}
			name := fmt.Sprintf("event-%d-%d", round, number)
			_, err := secrets.Create(ctx, secret(name, ""), metav1.CreateOptions{})
			check(t, err)
			made = append(made, name)
		}
	}
	var seen []string
	for len(seen) < len(made) {
		select {
		case event, ok := <-events.ResultChan():
			if !ok || event.Type != watch.Added {
				t.Fatalf("%v after %v", event, seen)
			}
			seen = append(seen, event.Object.(*corev1.Secret).Name)
		case <-ctx.Done():
			t.Fatalf("only %v", seen)
		}
	}
	if !slices.Equal(seen, made) {
		t.Fatalf("%v instead of %v", seen, made)
	}
}

func retried(client *kubernetes.Clientset, namespace string) cache.WatcherWithContext {
	return &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Secrets(namespace).Watch(ctx, options)
		},
	}
}
