// The CPU that Kubernetes' own field manager takes for what the row of server-side applies measures:
// the object from its stored form, protobuf as with kube-apiserver, the configuration from JSON, the
// apply, the stored form again, and the answer as JSON. What a server does around that (routing,
// authorization, admission, validation, the store) is not in it.
//
//	go run . MANAGERS APPLIES
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
)

// configuration is that of the row: a fifth of an object of 4 KB, with other values in each turn.
func configuration(turn, managers int) (string, []byte) {
	manager := fmt.Sprintf("manager-%d", turn%managers)
	data := map[string]string{}
	for key := range 8 {
		data[fmt.Sprintf("%s-key-%d", manager, key)] = strings.Repeat(fmt.Sprintf("%08d", turn), 12)
	}
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "applied", "labels": map[string]string{manager: "here"}},
		"data":     data,
	})
	must(err)
	return manager, config
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func spent() int64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
}

func main() {
	managers, err := strconv.Atoi(os.Args[1])
	must(err)
	applies, err := strconv.Atoi(os.Args[2])
	must(err)
	kind := corev1.SchemeGroupVersion.WithKind("ConfigMap")
	manager, err := managedfields.NewDefaultFieldManager(
		applyconfigurations.NewTypeConverter(scheme.Scheme),
		scheme.Scheme, scheme.Scheme, scheme.Scheme, kind, kind.GroupVersion(), "", nil)
	must(err)
	storage := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	answers := scheme.Codecs.LegacyCodec(kind.GroupVersion())

	encode := func(encoder runtime.Encoder, object runtime.Object) []byte {
		var out bytes.Buffer
		must(encoder.Encode(object, &out))
		return out.Bytes()
	}
	stored := encode(storage, &corev1.ConfigMap{})
	apply := func(turn int) {
		name, config := configuration(turn, managers)
		live, _, err := storage.Decode(stored, &kind, nil)
		must(err)
		live.GetObjectKind().SetGroupVersionKind(kind)
		patch := &unstructured.Unstructured{}
		must(json.Unmarshal(config, &patch.Object))
		applied, err := manager.Apply(live, patch, name, false)
		must(err)
		stored = encode(storage, applied)
		encode(answers, applied)
	}
	first := managers * 20
	for turn := range first {
		apply(turn)
	}
	before := spent()
	for turn := first; turn < first+applies; turn++ {
		apply(turn)
	}
	// What making configurations takes is no part of it.
	applied := spent() - before
	before = spent()
	for turn := first; turn < first+applies; turn++ {
		configuration(turn, managers)
	}
	fmt.Printf("%.1f\n", float64(applied-(spent()-before))/float64(applies))
}
