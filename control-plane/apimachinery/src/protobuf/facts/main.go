// Command facts prints the table of messages that the protobuf transcoder reads.
//
// What a message is in JSON comes from the Go types, by reflection: names, which fields are
// pointers, which are left out when empty. What it is on the wire comes from the protobuf tags
// of the same types, and is held against the generated.proto files beside them.
//
//	go run . > ../kubernetes.txt
//
// To refresh: raise the versions in go.mod, go mod tidy, run it, run the tests.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Types that are one value in JSON.
var values = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():          "time",
	reflect.TypeFor[metav1.MicroTime]():     "microtime",
	reflect.TypeFor[metav1.Duration]():      "duration",
	reflect.TypeFor[resource.Quantity]():    "quantity",
	reflect.TypeFor[intstr.IntOrString]():   "intorstring",
	reflect.TypeFor[runtime.RawExtension](): "json",
	reflect.TypeFor[metav1.FieldsV1]():      "json",
	reflect.TypeFor[apiextensions.JSON]():   "json",
}

// Types that are in JSON what one of their fields is.
var unions = map[reflect.Type]bool{
	reflect.TypeFor[apiextensions.JSONSchemaPropsOrBool]():        true,
	reflect.TypeFor[apiextensions.JSONSchemaPropsOrArray]():       true,
	reflect.TypeFor[apiextensions.JSONSchemaPropsOrStringArray](): true,
}

// Kinds that every group-version registers: one line serves for all.
var everywhere = map[string]bool{
	"CreateOptions": false, "DeleteOptions": true, "GetOptions": false, "ListOptions": false,
	"PatchOptions": false, "UpdateOptions": false, "WatchEvent": false, "ExportOptions": false,
}

type message struct {
	union bool
	lines []string
}

type table struct {
	messages map[string]*message
	protos   map[string]map[string]map[int]string
}

func main() {
	must(apiextensions.AddToScheme(scheme.Scheme))
	must(apiregistration.AddToScheme(scheme.Scheme))
	must(metav1.AddMetaToScheme(scheme.Scheme))
	must(metav1beta1.AddMetaToScheme(scheme.Scheme))
	must(metrics.AddToScheme(scheme.Scheme))
	t := table{messages: map[string]*message{}, protos: map[string]map[string]map[int]string{}}
	kinds := map[string]bool{}
	for gvk, kind := range scheme.Scheme.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || !marshals(kind) || removed(kind) {
			continue
		}
		if served, special := everywhere[gvk.Kind]; special {
			if served {
				kinds["kind * "+gvk.Kind+" "+t.message(kind)] = true
			}
			continue
		}
		if gvk.Kind == "Table" || gvk.Kind == "TableOptions" {
			continue
		}
		kinds[fmt.Sprintf("kind %s %s %s", gvk.GroupVersion(), gvk.Kind, t.message(kind))] = true
	}
	out := bufio.NewWriter(os.Stdout)
	for _, line := range sorted(kinds) {
		fmt.Fprintln(out, line)
	}
	for _, name := range sorted(t.messages) {
		sort := "message"
		if t.messages[name].union {
			sort = "union"
		}
		fmt.Fprintln(out, sort, name)
		for _, line := range t.messages[name].lines {
			fmt.Fprintln(out, line)
		}
	}
	must(out.Flush())
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func sorted[V any](set map[string]V) []string {
	var keys []string
	for key := range set {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// minor is the release whose API this is.
const minor = 37

// removed tells whether the kind is no longer served in that release.
func removed(t reflect.Type) bool {
	lifecycle, ok := reflect.New(t).Interface().(interface{ APILifecycleRemoved() (int, int) })
	if !ok {
		return false
	}
	_, in := lifecycle.APILifecycleRemoved()
	return in <= minor
}

func marshals(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ MarshalTo([]byte) (int, error) }]())
}

// name shortens k8s.io/api/core/v1.Pod to core.v1.Pod.
func name(t reflect.Type) string {
	parts := strings.Split(t.PkgPath(), "/")
	return strings.Join(parts[len(parts)-2:], ".") + "." + t.Name()
}

func (t *table) message(of reflect.Type) string {
	own := name(of)
	if t.messages[own] != nil {
		return own
	}
	m := &message{union: unions[of]}
	t.messages[own] = m
	proto := t.proto(of)
	numbers := map[int]string{}
	for i := range of.NumField() {
		field := of.Field(i)
		tag := strings.Split(field.Tag.Get("protobuf"), ",")
		if len(tag) < 2 {
			if field.Type != reflect.TypeFor[metav1.TypeMeta]() && field.Type != reflect.TypeFor[runtime.TypeMeta]() {
				fmt.Fprintf(os.Stderr, "%s.%s is not in protobuf\n", own, field.Name)
			}
			continue
		}
		number, err := strconv.Atoi(tag[1])
		must(err)
		json := strings.Split(field.Tag.Get("json"), ",")
		has := func(option string) bool {
			for _, o := range json[1:] {
				if o == option {
					return true
				}
			}
			return false
		}
		label := json[0]
		switch {
		case m.union:
			label = "."
		case has("inline") || (field.Anonymous && label == ""):
			label = "."
			if field.Type.Kind() != reflect.Struct {
				fail("%s.%s: something else than a struct is inlined", own, field.Name)
			}
		case label == "" || label == "-":
			fail("%s.%s has no name in JSON", own, field.Name)
		}
		kind, wire := t.kind(field, strings.HasPrefix(proto[number], "repeated "), name(of))
		if proto[number] != wire {
			fail("%s.%s: number %d is %q in generated.proto, %q in Go", own, field.Name, number, proto[number], wire)
		}
		delete(proto, number)
		switch {
		case has("omitzero"):
			if !strings.HasSuffix(kind, "time") {
				fail("%s.%s: omitzero of something else than a time", own, field.Name)
			}
			kind += "~"
		case has("omitempty"):
			kind += "?"
		}
		numbers[number] = fmt.Sprintf("%d %s %s", number, label, kind)
	}
	for number, kind := range proto {
		fail("%s: number %d of generated.proto, %s, is not in Go", own, number, kind)
	}
	var order []int
	for number := range numbers {
		order = append(order, number)
	}
	sort.Ints(order)
	for _, number := range order {
		m.lines = append(m.lines, numbers[number])
	}
	return own
}

// kind is the type of a field in our table, and in generated.proto.
func (t *table) kind(field reflect.StructField, repeated bool, own string) (string, string) {
	of := field.Type
	where := own + "." + field.Name
	pkg := own[:strings.LastIndex(own, ".")+1]
	single := func(of reflect.Type) (string, string) { return t.single(of, where, pkg) }
	if of.Kind() == reflect.Pointer {
		if k := of.Elem().Kind(); k == reflect.Slice || k == reflect.Map || k == reflect.Pointer {
			fail("%s: a pointer to %s", where, k)
		}
		kind, wire := single(of.Elem())
		return "*" + kind, "optional " + wire
	}
	bytes := of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Uint8
	switch {
	case of.Kind() == reflect.Map:
		if of.Key().Kind() != reflect.String {
			fail("%s: keys are no strings", where)
		}
		kind, wire := single(of.Elem())
		return "{}" + kind, "map<string, " + wire + ">"
	case of.Kind() == reflect.Slice && !bytes && repeated:
		elem := of.Elem()
		if elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		kind, wire := single(elem)
		return "[]" + kind, "repeated " + wire
	default:
		kind, wire := single(of)
		return kind, "optional " + wire
	}
}

func (t *table) single(of reflect.Type, where, pkg string) (string, string) {
	if kind, ok := values[of]; ok {
		return kind, name(of)
	}
	switch of.Kind() {
	case reflect.String:
		return "string", "string"
	case reflect.Bool:
		return "bool", "bool"
	case reflect.Int, reflect.Int32:
		return "int", "int32"
	case reflect.Int64:
		return "int", "int64"
	case reflect.Float64:
		return "double", "double"
	case reflect.Struct:
		full := t.message(of)
		return strings.TrimPrefix(full, pkg), full
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			return "bytes", "bytes"
		}
		if of.Elem().Kind() == reflect.String && of.Name() != "" {
			return "items", name(of)
		}
	}
	fail("%s: no rule for %s", where, of)
	return "", ""
}

var (
	messageLine = regexp.MustCompile(`^message (\w+) \{`)
	fieldLine   = regexp.MustCompile(`^  (optional |repeated )?(map<.*>|[\w.]+) \w+ = (\d+);`)
)

// proto is the message as generated.proto has it: the type by the number.
func (t *table) proto(of reflect.Type) map[int]string {
	pkg := of.PkgPath()
	if t.protos[pkg] == nil {
		t.protos[pkg] = readProto(pkg)
	}
	found := t.protos[pkg][of.Name()]
	if found == nil {
		fail("%s is not in the generated.proto of its package", name(of))
	}
	return found
}

func readProto(pkg string) map[string]map[int]string {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
	must(err)
	file, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "generated.proto"))
	must(err)
	messages := map[string]map[int]string{}
	parts := strings.Split(pkg, "/")
	own := strings.Join(parts[len(parts)-2:], ".") + "."
	short := func(kind string) string {
		kind = strings.TrimPrefix(kind, ".")
		switch {
		case strings.Contains(kind, "."):
			parts := strings.Split(kind, ".")
			return strings.Join(parts[len(parts)-3:], ".")
		case kind[0] >= 'A' && kind[0] <= 'Z':
			return own + kind
		}
		return kind
	}
	var current map[int]string
	for _, line := range strings.Split(string(file), "\n") {
		if found := messageLine.FindStringSubmatch(line); found != nil {
			current = map[int]string{}
			messages[found[1]] = current
		}
		found := fieldLine.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		number, err := strconv.Atoi(found[3])
		must(err)
		if value, ok := strings.CutPrefix(found[2], "map<string, "); ok {
			current[number] = "map<string, " + short(strings.TrimSuffix(value, ">")) + ">"
		} else {
			current[number] = found[1] + short(found[2])
		}
	}
	return messages
}
