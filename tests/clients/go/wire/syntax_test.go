package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// drawn is a text of these words.
func drawn(r *rand.Rand, words []string) string {
	var text strings.Builder
	for range r.Intn(9) {
		text.WriteString(words[r.Intn(len(words))])
	}
	return text.String()
}

// same draws texts and holds what we print of each, or whether we refuse it, against Go, which
// may read what we printed once more.
func same(t *testing.T, letter byte, words []string, theirs, reread func(string) (string, error)) {
	t.Helper()
	ours := start(t)
	r := rand.New(rand.NewSource(number("SEED", 1)))
	taken := 0
	for range 1000 * number("ROUNDS", 20) {
		text := drawn(r, words)
		want, refused := theirs(text)
		if errors.Is(refused, errBroken) {
			continue
		}
		printed, err := ours.do(letter, []byte(text))
		got := string(printed)
		if err == nil && reread != nil {
			got, err = reread(got)
		}
		switch {
		case (err == nil) != (refused == nil):
			t.Errorf("%q: %q, %v; by Go %q, %v", text, got, err, want, refused)
		case err == nil && got != want:
			t.Errorf("%q: %q; by Go %q", text, got, want)
		case err == nil:
			taken++
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if taken < 1000 {
		t.Errorf("only %d texts were good ones", taken)
	}
}

func TestQuantitiesAreThoseOfGo(t *testing.T) {
	words := []string{
		"0", "1", "9", "25", "00", "1024", "999", ".", "-", "+", "n", "u", "m", "k", "M", "G", "T", "P", "E",
		"Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "e-3", "E6", "9223372036854775807", "123456789012345678901234567890",
	}
	// To print what has a large exponent Go takes minutes, and gigabytes.
	endless := regexp.MustCompile(`[eE][+-]?[0-9]{4}`)
	theirs := func(text string) (string, error) {
		if endless.MatchString(text) {
			return "", errBroken
		}
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return "", err
		}
		// What is counted in billionths has an end here.
		if about := q.AsApproximateFloat64(); about > 1e29 || about < -1e29 {
			return "", errors.New("too much")
		}
		// Here the canonical form is printed always, by Go not of what was short enough.
		q.Neg()
		q.Neg()
		printed := q.String()
		// Go has no suffix for much, and prints less.
		if again, _ := resource.ParseQuantity(printed); again.Cmp(q) != 0 {
			return "", errors.New("too much")
		}
		return printed, nil
	}
	same(t, 'q', words, theirs, theirs)
}

func TestLabelSelectorsAreThoseOfGo(t *testing.T) {
	words := []string{
		"a", "b", "x.y/z", "in", "notin", "1", "5", "-1", " ", " in ", " notin ", "(", ")", "(a,b)", "()", ",", "=", "==",
		"!=", "!", ">", "<", "\t", "A_b.C", "-", "/",
	}
	// What it selects of many sets of labels, since there are several ways to print the same.
	theirs := func(text string) (string, error) {
		s, err := labels.Parse(text)
		if err != nil {
			return "", err
		}
		var selected strings.Builder
		r := rand.New(rand.NewSource(1))
		for range 100 {
			set := labels.Set{}
			for range r.Intn(4) {
				key := []string{"a", "b", "in", "notin", "x.y/z", "A_b.C"}[r.Intn(6)]
				set[key] = []string{"", "a", "b", "1", "5", "A_b.C"}[r.Intn(6)]
			}
			fmt.Fprint(&selected, s.Matches(set), " ")
		}
		return selected.String(), nil
	}
	same(t, 'l', words, theirs, theirs)
}

func TestFieldSelectorsAreThoseOfGo(t *testing.T) {
	words := []string{"metadata.name", "status.phase", "a", "b", "=", "=", "==", "!=", "!", ",", ",", "\\", "\\,", "\\=", "\\\\", " ", "ü"}
	theirs := func(text string) (string, error) {
		s, err := fields.ParseSelector(text)
		if err != nil {
			return "", err
		}
		// What "==" was is "=" now, which may stand elsewhere.
		s, err = fields.ParseSelector(s.String())
		return s.String(), err
	}
	same(t, 'f', words, theirs, theirs)
}

func TestNamesAreThoseOfGo(t *testing.T) {
	words := []string{"a", "b", "A", "0", "9", "-", ".", "_", "/", "x.y/", "example.com", "..", " ", "ü", strings.Repeat("a", 40), strings.Repeat("b.", 60)}
	rules := []func(string) []string{
		validation.IsDNS1123Label, validation.IsDNS1035Label, validation.IsDNS1123Subdomain, validation.IsQualifiedName,
		validation.IsValidLabelValue, validation.IsConfigMapKey,
	}
	same(t, 'n', words, func(text string) (string, error) {
		var said []string
		for _, rule := range rules {
			said = append(said, strings.Join(rule(text), "; "))
		}
		return strings.Join(said, "\n"), nil
	}, nil)
}

func TestYAMLIsThatOfGo(t *testing.T) {
	ours := start(t)
	r := rand.New(rand.NewSource(number("SEED", 1)))
	words := []string{
		"a", "b: ", "c: ", "- ", "\n", "\n  ", "  ", ": ", "[", "]", "{", "}", ", ", "'", "\"", "|\n  ", ">-\n  ", "&x ", "*x",
		"# c\n", "1", "1.5", "~", "null", "true", "ü", "2026-01-01",
	}
	taken := 0
	for range 1000 * number("ROUNDS", 20) {
		text := drawn(r, words)
		want, refused := yaml.YAMLToJSON([]byte(text))
		got, err := ours.do('y', []byte(text))
		// Each refuses a little that the other takes; what both take they read alike, but for the
		// names of numbers.
		if err != nil || refused != nil {
			continue
		}
		taken++
		if found := differ(value(t, got), value(t, want), ""); found != "" {
			t.Fatalf("%q: %s", text, found)
		}
	}
	if taken < 1000 {
		t.Errorf("only %d texts were good ones", taken)
	}
}

// members draws a JSON object over few keys.
func members(r *rand.Rand, depth int) map[string]any {
	object := map[string]any{}
	for range r.Intn(4) {
		object[[]string{"a", "b", "~", "/"}[r.Intn(4)]] = anything(r, depth)
	}
	return object
}

func anything(r *rand.Rand, depth int) any {
	switch kind := r.Intn(6); {
	case kind == 0:
		return nil
	case kind == 1:
		return r.Intn(3)
	case kind == 2 || depth == 0:
		return []string{"", "a", "b"}[r.Intn(3)]
	case kind == 3:
		list := []any{}
		for range r.Intn(3) {
			list = append(list, anything(r, depth-1))
		}
		return list
	default:
		return members(r, depth-1)
	}
}

// patched holds our patching against Go's.
func patched(t *testing.T, letter byte, document, patch any, theirs func(document, patch []byte) ([]byte, error), ours *transcoder) bool {
	t.Helper()
	encoded := func(v any) []byte {
		data, err := json.Marshal(v)
		check(t, err)
		return data
	}
	body := encoded(map[string]any{"document": document, "patch": patch})
	want, refused := unbroken(theirs, encoded(document), encoded(patch))
	got, err := ours.do(letter, body)
	if errors.Is(refused, errBroken) {
		return false
	}
	// Nor does Go take the order of a list without any item, or whose items have no key.
	if refused != nil && (strings.Contains(refused.Error(), "no elements in any of the given slices") ||
		strings.HasSuffix(refused.Error(), "declared merge key: ")) {
		return false
	}
	if (err == nil) != (refused == nil) {
		t.Fatalf("%s: %s, %v; by Go %s, %v", body, got, err, want, refused)
	}
	if err != nil {
		return false
	}
	if found := differ(bare(value(t, got)), bare(value(t, want)), ""); found != "" {
		t.Fatalf("%s: %s\n%s by Go %s", body, found, got, want)
	}
	return true
}

var errBroken = errors.New("Go panics, or does not end")

// unbroken applies a patch by Go, which panics over lists of objects without a merge key.
func unbroken(theirs func(document, patch []byte) ([]byte, error), document, patch []byte) (patched []byte, err error) {
	defer func() {
		if recover() != nil {
			err = errBroken
		}
	}()
	return theirs(document, patch)
}

// bare is a value without nulls and directives, which no type takes over: Go leaves some of those
// where there was nothing to merge with, and prunes nulls at more places.
func bare(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = bare(v[i])
		}
	case map[string]any:
		for k := range v {
			if v[k] = bare(v[k]); v[k] == nil || strings.HasPrefix(k, "$") {
				delete(v, k)
			}
		}
	}
	return v
}

func TestJSONPatchesAreThoseOfGo(t *testing.T) {
	ours := start(t)
	r := rand.New(rand.NewSource(number("SEED", 1)))
	taken := 0
	for range 1000 * number("ROUNDS", 20) {
		pointer := func() string {
			path := ""
			for range 1 + r.Intn(2) {
				path += []string{"/a", "/b", "/~0", "/~1", "/0", "/1", "/-", "/-1", "/-2"}[r.Intn(9)]
			}
			return path
		}
		var patch []any
		for range 1 + r.Intn(2) {
			operation := map[string]any{"op": []string{"add", "remove", "replace", "copy", "move", "test"}[r.Intn(6)], "path": pointer()}
			switch operation["op"] {
			case "add", "replace", "test":
				operation["value"] = anything(r, 1)
			case "copy", "move":
				operation["from"] = pointer()
			}
			patch = append(patch, operation)
		}
		theirs := func(document, patch []byte) ([]byte, error) {
			decoded, err := jsonpatch.DecodePatch(patch)
			check(t, err)
			return decoded.Apply(document)
		}
		if patched(t, 'j', members(r, 2), patch, theirs, ours) {
			taken++
		}
	}
	if taken < 1000 {
		t.Errorf("only %d patches were good ones", taken)
	}
}

func TestMergePatchesAreThoseOfGo(t *testing.T) {
	ours := start(t)
	r := rand.New(rand.NewSource(number("SEED", 1)))
	for range 1000 * number("ROUNDS", 20) {
		patched(t, 'm', members(r, 3), members(r, 3), jsonpatch.MergePatch, ours)
	}
}

// filled is an object of a type with some of its fields, over few names and values.
func filled(r *rand.Rand, of reflect.Type, depth int) any {
	switch of.Kind() {
	case reflect.Pointer:
		return filled(r, of.Elem(), depth)
	case reflect.String:
		return []string{"a", "b", "c"}[r.Intn(3)]
	case reflect.Bool:
		return r.Intn(2) == 0
	case reflect.Int32, reflect.Int64:
		return 1 + r.Intn(3)
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			return "YQ=="
		}
		list := []any{}
		for range r.Intn(3) {
			list = append(list, filled(r, of.Elem(), depth+1))
		}
		return list
	case reflect.Map:
		object := map[string]any{}
		for range r.Intn(3) {
			object[[]string{"a", "b", "c"}[r.Intn(3)]] = filled(r, of.Elem(), depth+1)
		}
		return object
	case reflect.Struct:
		return structure(r, of, depth)
	}
	return 1
}

// identifies says whether a field of this name may tell the items of a list apart.
func identifies(name string) bool {
	switch name {
	case "name", "type", "port", "key", "uid", "ip", "topologyKey":
		return true
	}
	return strings.HasSuffix(name, "Port") || strings.HasSuffix(name, "Path")
}

func structure(r *rand.Rand, of reflect.Type, depth int) any {
	switch of.String() {
	case "v1.Time", "v1.MicroTime":
		return "2026-01-01T00:00:00Z"
	case "resource.Quantity", "intstr.IntOrString":
		return "1"
	}
	object := map[string]any{}
	for i := range of.NumField() {
		field := of.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || strings.Contains(options, "inline") {
			if inner, ok := filled(r, field.Type, depth).(map[string]any); ok {
				for key, value := range inner {
					object[key] = value
				}
			}
			continue
		}
		key := identifies(name)
		chance := 4
		if depth < 2 {
			chance = 2
		}
		if name == "managedFields" || name == "apiVersion" || name == "kind" && depth == 0 || !(key || r.Intn(chance) == 0 && depth < 8) {
			continue
		}
		object[name] = filled(r, field.Type, depth+1)
	}
	return object
}

// directives puts into a patch what only a strategic one knows.
func directives(r *rand.Rand, patch any) {
	switch patch := patch.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(patch))
		for _, name := range names {
			member := patch[name]
			directives(r, member)
			list, is := member.([]any)
			switch {
			// To Go an item whose name is null is one more item.
			case r.Intn(30) == 0 && !identifies(name):
				patch[name] = nil
			case is && r.Intn(10) == 0:
				patch["$setElementOrder/"+name] = append([]any{}, list...)
			case is && len(list) > 0 && r.Intn(10) == 0:
				if _, scalar := list[0].(string); scalar {
					patch["$deleteFromPrimitiveList/"+name] = list
					delete(patch, name)
				}
			}
		}
		if r.Intn(25) == 0 {
			patch["$patch"] = []string{"delete", "replace", "merge"}[r.Intn(3)]
		}
	case []any:
		for _, item := range patch {
			directives(r, item)
		}
	}
}

func TestStrategicPatchesAreThoseOfGo(t *testing.T) {
	ours := start(t)
	r := rand.New(rand.NewSource(number("SEED", 1)))
	kinds := []struct {
		apiVersion, kind string
		of               any
	}{
		{"v1", "Pod", corev1.Pod{}},
		{"v1", "Service", corev1.Service{}},
		{"v1", "Node", corev1.Node{}},
		{"v1", "ServiceAccount", corev1.ServiceAccount{}},
		{"apps/v1", "Deployment", appsv1.Deployment{}},
	}
	taken := 0
	for range 200 * number("ROUNDS", 20) {
		kind := kinds[r.Intn(len(kinds))]
		object := func() map[string]any {
			return structure(r, reflect.TypeOf(kind.of), 0).(map[string]any)
		}
		document, patch := object(), object()
		document["apiVersion"], document["kind"] = kind.apiVersion, kind.kind
		directives(r, patch)
		theirs := func(document, patch []byte) ([]byte, error) {
			return strategicpatch.StrategicMergePatch(document, patch, kind.of)
		}
		if patched(t, 's', document, patch, theirs, ours) {
			taken++
		}
	}
	if taken < 500 {
		t.Errorf("only %d patches were good ones", taken)
	}
}
