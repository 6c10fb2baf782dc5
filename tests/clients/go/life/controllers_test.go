package life

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/go-logr/logr/testr"
)

// copier keeps a Secret beside each ConfigMap that says `secret: wanted`.
type copier struct{ client.Client }

func (c *copier) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var source corev1.ConfigMap
	if err := c.Get(ctx, request.NamespacedName, &source); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if source.Labels["secret"] != "wanted" || source.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	made := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: source.Namespace, Name: source.Name}}
	_, err := controllerutil.CreateOrUpdate(ctx, c, &made, func() error {
		made.Data = map[string][]byte{"value": []byte(source.Data["value"])}
		return controllerutil.SetControllerReference(&source, &made, c.Scheme())
	})
	return ctrl.Result{}, err
}

// TestAControllerLives runs an operator with an elected leader through a restart of the server.
func TestAControllerLives(t *testing.T) {
	ctx, plain, namespace := setting(t)
	log.SetLogger(testr.New(t))
	manager, err := ctrl.NewManager(config(t), ctrl.Options{
		Metrics:                       server.Options{BindAddress: "0"},
		Cache:                         cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
		LeaderElection:                true,
		LeaderElectionID:              "copier",
		LeaderElectionNamespace:       namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	check(t, err)
	check(t, ctrl.NewControllerManagedBy(manager).
		For(&corev1.ConfigMap{}).
		Owns(&corev1.Secret{}).
		Complete(reconcile.Reconciler(&copier{manager.GetClient()})))
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(running) }()

	source := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "source", Labels: map[string]string{"secret": "wanted"}},
		Data:       map[string]string{"value": "first"},
	}
	maps := plain.CoreV1().ConfigMaps(namespace)
	source, err = maps.Create(ctx, source, metav1.CreateOptions{})
	check(t, err)
	copied(t, ctx, plain, namespace, "first")
	check(t, plain.CoreV1().Secrets(namespace).Delete(ctx, "source", metav1.DeleteOptions{}))
	copied(t, ctx, plain, namespace, "first")

	disturb(t, "restart")
	source.Data["value"] = "second"
	_, err = maps.Update(ctx, source, metav1.UpdateOptions{})
	check(t, err)
	copied(t, ctx, plain, namespace, "second")

	// What it owns is collected with its owner.
	check(t, maps.Delete(ctx, "source", metav1.DeleteOptions{}))
	eventually(t, "the end of the Secret", func() error {
		_, err := plain.CoreV1().Secrets(namespace).Get(ctx, "source", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %v", err)
	})
	lease, err := plain.CoordinationV1().Leases(namespace).Get(ctx, "copier", metav1.GetOptions{})
	check(t, err)
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		t.Errorf("nobody leads: %v", lease.Spec)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the manager: %v", err)
	}
	lease, err = plain.CoordinationV1().Leases(namespace).Get(ctx, "copier", metav1.GetOptions{})
	check(t, err)
	if *lease.Spec.HolderIdentity != "" {
		t.Errorf("the lease is not released: %v", lease.Spec)
	}
}

func copied(t *testing.T, ctx context.Context, plain *kubernetes.Clientset, namespace, value string) {
	t.Helper()
	eventually(t, "the copy", func() error {
		got, err := plain.CoreV1().Secrets(namespace).Get(ctx, "source", metav1.GetOptions{})
		if err == nil && string(got.Data["value"]) != value {
			err = wanted(value, got.Data)
		}
		return err
	})
}
