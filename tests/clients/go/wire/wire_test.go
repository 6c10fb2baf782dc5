// Package wire holds our transcoding between the wire formats of the Kubernetes API against
// that of apimachinery: objects of every kind, filled at random, must come out alike. So must
// texts that are drawn of quantities, selectors, names and YAML, patches, and histories of objects
// that are applied and updated.
//
//	cargo build -p coracle-apimachinery --example transcode
//	TRANSCODE=$PWD/target/debug/examples/transcode go test -C tests/clients/go ./wire
//
// SEED and ROUNDS say how objects are filled and how many there are of each kind.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"reflect"
	"sort"
	"strconv"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/randfill"
)

// minor is the release whose API is served.
const minor = 37

type transcoder struct {
	in  io.WriteCloser
	out io.Reader
}

func start(t *testing.T) *transcoder {
	path := os.Getenv("TRANSCODE")
	if path == "" {
		t.Fatal("TRANSCODE is not set to the example that is to be tested")
	}
	command := exec.Command(path)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	check(t, err)
	out, err := command.StdoutPipe()
	check(t, err)
	check(t, command.Start())
	t.Cleanup(func() {
		in.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("the example: %v", err)
		}
	})
	return &transcoder{in, out}
}

func (c *transcoder) do(what byte, body []byte) ([]byte, error) {
	head := binary.BigEndian.AppendUint32([]byte{what}, uint32(len(body)))
	if _, err := c.in.Write(append(head, body...)); err != nil {
		return nil, err
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(c.out, answer); err != nil {
		return nil, err
	}
	data := make([]byte, binary.BigEndian.Uint32(answer[1:]))
	if _, err := io.ReadFull(c.out, data); err != nil {
		return nil, err
	}
	if answer[0] != '+' {
		return nil, fmt.Errorf("%s", data)
	}
	return data, nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func number(name string, otherwise int64) int64 {
	if value, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
		return value
	}
	return otherwise
}

// Fields that hold any JSON, and schemas, which hold schemas.
func special(serializer.CodecFactory) []any {
	return []any{
		func(j *apiextensions.JSON, c randfill.Continue) {
			j.Raw = []byte(fmt.Sprintf(`{"a":[%d,null,"<%d>"]}`, c.Intn(1000), c.Intn(10)))
		},
		func(s *apiextensions.JSONSchemaProps, c randfill.Continue) {
			// Without this a schema would have no end.
			if c.Intn(20) == 0 {
				c.FillNoCustom(s)
			} else {
				s.Type = c.String(0)
				s.Description = "d"
				value := c.Float64()
				s.Maximum = &value
				whole := float64(c.Intn(100))
				s.Minimum = &whole
			}
		},
		func(s *apiextensions.JSONSchemaPropsOrBool, c randfill.Continue) {
			if s.Allows = c.Bool(); s.Allows && c.Bool() {
				s.Schema = &apiextensions.JSONSchemaProps{}
				c.Fill(s.Schema)
			}
		},
		func(s *apiextensions.JSONSchemaPropsOrArray, c randfill.Continue) {
			if c.Bool() {
				s.Schema = &apiextensions.JSONSchemaProps{}
				c.Fill(s.Schema)
			} else {
				s.JSONSchemas = make([]apiextensions.JSONSchemaProps, 2)
				c.Fill(&s.JSONSchemas[0])
			}
		},
		func(s *apiextensions.JSONSchemaPropsOrStringArray, c randfill.Continue) {
			if c.Bool() {
				s.Schema = &apiextensions.JSONSchemaProps{}
				c.Fill(s.Schema)
			} else {
				s.Property = []string{c.String(0), ""}
			}
		},
		func(r *runtime.RawExtension, c randfill.Continue) {
			if c.Bool() {
				r.Raw = []byte(`{"apiVersion":"example.org/v1","kind":"Widget","n":[1.5,-2,true]}`)
			}
		},
	}
}

func served(gvk schema.GroupVersionKind, t reflect.Type) bool {
	switch gvk.Kind {
	case "ListOptions", "GetOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "WatchEvent":
		// They are in queries, and in frames.
		return false
	case "Table", "TableOptions":
		return false
	}
	if gvk.Version == runtime.APIVersionInternal || gvk.GroupVersion().String() == "meta.k8s.io/v1beta1" {
		return false
	}
	object := reflect.New(t).Interface()
	if _, ok := object.(interface{ MarshalTo([]byte) (int, error) }); !ok {
		return false
	}
	if old, ok := object.(interface{ APILifecycleRemoved() (int, int) }); ok {
		_, in := old.APILifecycleRemoved()
		return in > minor
	}
	return true
}

func value(t *testing.T, data []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return numbers(v)
}

// numbers makes 1.0 and 1 the same. What is written to protobuf is compared to the last bit.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		if f == float64(int64(f)) {
			return int64(f)
		}
		// The last digits are lost where JSON is parsed without a schema.
		return strconv.FormatFloat(f, 'g', 12, 64)
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// present leaves out nulls: in CBOR Go omits a struct that is null, in JSON it does not.
func present(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = present(v[i])
		}
	case map[string]any:
		for k := range v {
			if v[k] = present(v[k]); v[k] == nil {
				delete(v, k)
			}
		}
	}
	return v
}

// differ says where two values differ; nothing where they do not.
func differ(got, want any, path string) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		for key := range w {
			if _, ok := g[key]; !ok {
				return fmt.Sprintf("%s.%s is missing, it is %v", path, key, w[key])
			}
			if found := differ(g[key], w[key], path+"."+key); found != "" {
				return found
			}
		}
		for key := range g {
			if _, ok := w[key]; !ok {
				return fmt.Sprintf("%s.%s is there, as %v", path, key, g[key])
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			break
		}
		for i := range w {
			if found := differ(g[i], w[i], fmt.Sprintf("%s[%d]", path, i)); found != "" {
				return found
			}
		}
		return ""
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Sprintf("%s is %v, not %v", path, got, want)
	}
	return ""
}

func TestEveryKindIsTranscodedAsByGo(t *testing.T) {
	check(t, apiextensions.AddToScheme(scheme.Scheme))
	check(t, apiregistration.AddToScheme(scheme.Scheme))
	check(t, metav1.AddMetaToScheme(scheme.Scheme))
	ours := start(t)
	codecs := serializer.NewCodecFactory(scheme.Scheme)
	funcs := fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, special)
	seed, rounds := number("SEED", 1), number("ROUNDS", 20)
	filler := fuzzer.FuzzerFor(funcs, rand.NewSource(seed), codecs).NilChance(.3).NumElements(0, 2)
	proto := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	binary := cbor.NewSerializer(scheme.Scheme, scheme.Scheme)

	var kinds []schema.GroupVersionKind
	for gvk, of := range scheme.Scheme.AllKnownTypes() {
		if served(gvk, of) {
			kinds = append(kinds, gvk)
		}
	}
	sort.Slice(kinds, func(i, j int) bool { return kinds[i].String() < kinds[j].String() })
	if len(kinds) < 200 {
		t.Fatalf("only %d kinds", len(kinds))
	}
	encode := func(e runtime.Encoder, o runtime.Object) []byte {
		var out bytes.Buffer
		check(t, e.Encode(o, &out))
		return out.Bytes()
	}
	empty := func(gvk schema.GroupVersionKind) runtime.Object {
		o, err := scheme.Scheme.New(gvk)
		check(t, err)
		return o
	}
	for _, gvk := range kinds {
		for round := range rounds {
			what := fmt.Sprintf("%s round %d", gvk, round)
			object := empty(gvk)
			if round > 0 {
				filler.Fill(object)
			}
			object.GetObjectKind().SetGroupVersionKind(gvk)

			wire := encode(proto, object)
			back := empty(gvk)
			_, _, err := proto.Decode(wire, &gvk, back)
			check(t, err)
			want, err := json.Marshal(back)
			check(t, err)
			got, err := ours.do('p', wire)
			if err != nil {
				t.Fatalf("%s: %v\n%s", what, err, want)
			}
			if found := differ(value(t, got), value(t, want), ""); found != "" {
				t.Fatalf("%s from protobuf: %s", what, found)
			}

			again := empty(gvk)
			check(t, json.Unmarshal(want, again))
			again.GetObjectKind().SetGroupVersionKind(gvk)
			wire = encode(proto, again)
			got, err = ours.do('P', want)
			if err != nil {
				t.Fatalf("%s: %v\n%s", what, err, want)
			}
			if !bytes.Equal(got, wire) {
				t.Fatalf("%s to protobuf:\n%x\nwant\n%x", what, got, wire)
			}

			got, err = ours.do('c', encode(binary, again))
			if err != nil {
				t.Fatalf("%s: %v\n%s", what, err, want)
			}
			if found := differ(present(value(t, got)), present(value(t, want)), ""); found != "" {
				t.Fatalf("%s from CBOR: %s", what, found)
			}
			got, err = ours.do('C', want)
			check(t, err)
			read := empty(gvk)
			_, _, err = binary.Decode(got, &gvk, read)
			if err != nil {
				t.Fatalf("%s: Go does not read our CBOR: %v", what, err)
			}
			final, err := json.Marshal(read)
			check(t, err)
			if found := differ(present(value(t, final)), present(value(t, want)), ""); found != "" {
				t.Fatalf("%s to CBOR: %s", what, found)
			}
		}
	}
	t.Logf("%d kinds, %d objects of each", len(kinds), rounds)
}
