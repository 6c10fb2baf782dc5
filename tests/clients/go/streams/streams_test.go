// Package streams reaches into containers as programs do that are built on client-go: by its executors
// and its dialer, in SPDY as they have it from early on, and in WebSockets.
//
//	KUBECONFIG=$(coracle kubeconfig --path) go test -C tests/clients/go -count=1 ./streams
//
// The cluster must run containers, and know an image of busybox as busybox:v1.
package streams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// patience is longer than anything here takes on a machine that works, however loaded.
const patience = 120 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cluster is what the tests reach.
type cluster struct {
	ctx       context.Context
	config    *rest.Config
	client    *kubernetes.Clientset
	namespace string
}

// setting has a namespace of the test's own, in which one Pod runs.
func setting(t *testing.T, spec corev1.Container) cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(t, err)
	client, err := kubernetes.NewForConfig(config)
	check(t, err)
	made, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "streams-"},
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
	now := int64(0)
	spec.Name, spec.Image = "main", "busybox:v1"
	_, err = client.CoreV1().Pods(made.Name).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "box"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &now,
			RestartPolicy:                 corev1.RestartPolicyNever,
			Containers:                    []corev1.Container{spec},
		},
	}, metav1.CreateOptions{})
	check(t, err)
	eventually(t, "the Pod", func() error {
		pod, err := client.CoreV1().Pods(made.Name).Get(ctx, "box", metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("%v", pod.Status)
		}
		return err
	})
	return cluster{ctx, config, client, made.Name}
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

// path is that of a subresource of the Pod.
func (c cluster) path(subresource string, options runtime.Object) *url.URL {
	request := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name("box").SubResource(subresource)
	if options != nil {
		request = request.VersionedParams(options, scheme.ParameterCodec)
	}
	return request.URL()
}

// spdy is an executor that offers these protocols.
func (c cluster) spdy(t *testing.T, path *url.URL, protocols ...string) remotecommand.Executor {
	t.Helper()
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	check(t, err)
	executor, err := remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, http.MethodPost, path, protocols...)
	check(t, err)
	return executor
}

// executors are those that client-go has, and such as offer no more than older clients did.
func (c cluster) executors(t *testing.T, path *url.URL) map[string]remotecommand.Executor {
	t.Helper()
	plain, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, path)
	check(t, err)
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, path.String())
	check(t, err)
	return map[string]remotecommand.Executor{
		"SPDY":      plain,
		"SPDY v3":   c.spdy(t, path, "v3.channel.k8s.io"),
		"SPDY v2":   c.spdy(t, path, "v2.channel.k8s.io"),
		"WebSocket": websocket,
	}
}

// says complains of a failure that is none of that exit code. Before version 4 it is told in words.
func says(name string, err error, code int) error {
	var coded exec.CodeExitError
	old := strings.HasSuffix(name, "v3") || strings.HasSuffix(name, "v2")
	switch {
	case old && err != nil && strings.Contains(err.Error(), fmt.Sprintf("exit status %d", code)):
		return nil
	case !old && errors.As(err, &coded) && coded.Code == code:
		return nil
	}
	return fmt.Errorf("not the exit code %d: %v", code, err)
}

var sleeps = corev1.Container{Command: []string{"sleep", "100000"}}

func TestExec(t *testing.T) {
	cluster := setting(t, sleeps)
	path := cluster.path("exec", &corev1.PodExecOptions{
		Command: []string{"sh", "-c", "cat; echo oops >&2; exit 42"},
		Stdin:   true, Stdout: true, Stderr: true,
	})
	// More than any buffer on the way holds.
	input := strings.Repeat("0123456789abcdef", 1<<17)
	for name, executor := range cluster.executors(t, path) {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := executor.StreamWithContext(cluster.ctx, remotecommand.StreamOptions{
				Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr,
			})
			check(t, says(name, err, 42))
			if stdout.String() != input || stderr.String() != "oops\n" {
				t.Fatalf("%d bytes, and %q", stdout.Len(), stderr.String())
			}
		})
	}
	path = cluster.path("exec", &corev1.PodExecOptions{Command: []string{"echo", "well"}, Stdout: true})
	for name, executor := range cluster.executors(t, path) {
		t.Run(name+" without input", func(t *testing.T) {
			var stdout bytes.Buffer
			check(t, executor.StreamWithContext(cluster.ctx, remotecommand.StreamOptions{Stdout: &stdout}))
			if stdout.String() != "well\n" {
				t.Fatalf("%q", stdout.String())
			}
		})
	}
	err := cluster.spdy(t, path, "v9.channel.k8s.io").StreamWithContext(cluster.ctx, remotecommand.StreamOptions{Stdout: io.Discard})
	expected := "unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts [v4.channel.k8s.io "
	if err == nil || !strings.Contains(err.Error(), expected) {
		t.Fatalf("%v", err)
	}
}

// size is a terminal's that does not change.
type size chan remotecommand.TerminalSize

func (s size) Next() *remotecommand.TerminalSize {
	next, ok := <-s
	if !ok {
		return nil
	}
	return &next
}

func TestTerminal(t *testing.T) {
	cluster := setting(t, sleeps)
	path := cluster.path("exec", &corev1.PodExecOptions{
		Command: []string{"sh", "-c", "test -t 0 && until stty size | grep 97; do sleep 0.1; done; exit 5"},
		Stdin:   true, Stdout: true, TTY: true,
	})
	for name, executor := range cluster.executors(t, path) {
		if name == "SPDY v2" {
			// It has no sizes.
			continue
		}
		t.Run(name, func(t *testing.T) {
			sizes := make(size, 1)
			sizes <- remotecommand.TerminalSize{Width: 97, Height: 31}
			close(sizes)
			stdin, held := io.Pipe()
			defer held.Close()
			var stdout bytes.Buffer
			err := executor.StreamWithContext(cluster.ctx, remotecommand.StreamOptions{
				Stdin: stdin, Stdout: &stdout, Tty: true, TerminalSizeQueue: sizes,
			})
			check(t, says(name, err, 5))
			if !strings.Contains(stdout.String(), "31 97") {
				t.Fatalf("%q", stdout.String())
			}
		})
	}
}

func TestAttach(t *testing.T) {
	cluster := setting(t, corev1.Container{Command: []string{"cat"}, Stdin: true, StdinOnce: true})
	path := cluster.path("attach", &corev1.PodAttachOptions{Stdin: true, Stdout: true, Stderr: true})
	executor, err := remotecommand.NewSPDYExecutor(cluster.config, http.MethodPost, path)
	check(t, err)
	var stdout, stderr bytes.Buffer
	check(t, executor.StreamWithContext(cluster.ctx, remotecommand.StreamOptions{
		Stdin: strings.NewReader("meow\n"), Stdout: &stdout, Stderr: &stderr,
	}))
	if stdout.String() != "meow\n" || stderr.Len() != 0 {
		t.Fatalf("%q, and %q", stdout.String(), stderr.String())
	}
}

func TestPortForward(t *testing.T) {
	cluster := setting(t, corev1.Container{
		Command: []string{"sh", "-c", "mkdir /www && echo page > /www/index.html && httpd -f -p 8080 -h /www"},
	})
	transport, upgrader, err := spdy.RoundTripperFor(cluster.config)
	check(t, err)
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, cluster.path("portforward", nil))
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, []string{"0:8080"}, stop, ready, io.Discard, os.Stderr)
	check(t, err)
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	}
	ports, err := forwarder.GetPorts()
	check(t, err)
	ask := func() error {
		// Each time by a connection of its own.
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
		response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		page, err := io.ReadAll(response.Body)
		if err == nil && string(page) != "page\n" {
			err = fmt.Errorf("%q", page)
		}
		return err
	}
	eventually(t, "the page", ask)
	for range 3 {
		check(t, ask())
	}
	close(stop)
	check(t, <-ended)
}
