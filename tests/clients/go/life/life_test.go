// Package life goes through what programs do with client-go and controller-runtime as they come,
// against a whole cluster: lists in pages, the four patch types, apply, informers through
// disconnects, scale, eviction, events, controllers.
//
//	KUBECONFIG=$(coracle kubeconfig --path) go test -C tests/clients/go -count=1 ./life
//
// The cluster must know the images of wasm-samples. Where DISTURB_URL is set, a POST to its /cut
// ends all connections to the server, and one to its /restart kills the server and returns when it
// is back; without it the tests that need this are skipped.
package life

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is longer than anything here takes on a machine that works, however loaded.
const patience = 60 * time.Second

func config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(t, err)
	config.QPS, config.Burst = 1000, 1000
	return config
}

// setting is what most tests begin with: a typed client, and a namespace that is the test's own.
func setting(t *testing.T) (context.Context, *kubernetes.Clientset, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	client, err := kubernetes.NewForConfig(config(t))
	check(t, err)
	made, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "life-"},
	}, metav1.CreateOptions{})
	check(t, err)
	t.Cleanup(func() {
		check(t, client.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{}))
	})
	// Pods are refused until their ServiceAccount is there.
	eventually(t, "the default ServiceAccount", func() error {
		_, err := client.CoreV1().ServiceAccounts(made.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return ctx, client, made.Name
}

// disturb cuts connections or restarts the server.
func disturb(t *testing.T, how string) {
	t.Helper()
	url := os.Getenv("DISTURB_URL")
	if url == "" {
		t.Skip("SKIPPED: no DISTURB_URL, nothing can be disturbed")
	}
	response, err := http.Post(url+"/"+how, "", nil)
	check(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", how, response.Status)
	}
	// A read finds out which connections have ended; a write would not be sent twice.
	client, err := kubernetes.NewForConfig(config(t))
	check(t, err)
	eventually(t, "the server after a "+how, func() error {
		return client.RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks until the probe has nothing to complain about.
func eventually(t *testing.T, what string, probe func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		err := probe()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

func secret(name, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": value}}
}

// wanted is the complaint of a probe that found something else.
func wanted(want, got any) error {
	return fmt.Errorf("%v instead of %v", got, want)
}
