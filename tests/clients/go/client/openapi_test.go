package client

import (
	"strings"
	"testing"

	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi"
	"sigs.k8s.io/yaml"
)

// Each document in protobuf is what gnostic makes of the same in JSON.
func TestOpenAPIV3IsTheSameInProtobuf(t *testing.T) {
	client, err := discovery.NewDiscoveryClientForConfig(config(t))
	check(t, err)
	paths, err := client.OpenAPIV3().Paths()
	check(t, err)
	if len(paths) < 20 {
		t.Fatalf("%d documents", len(paths))
	}
	for name, path := range paths {
		text, err := path.Schema(runtime.ContentTypeJSON)
		check(t, err)
		want, err := openapi_v3.ParseDocument(text)
		if err != nil {
			t.Fatalf("%s is no document: %v", name, err)
		}
		for _, asked := range []string{
			openapi.ContentTypeOpenAPIV3PB,
			strings.Replace(openapi.ContentTypeOpenAPIV3PB, "@", ".", 1),
		} {
			encoded, err := path.Schema(asked)
			check(t, err)
			got := &openapi_v3.Document{}
			check(t, proto.Unmarshal(encoded, got))
			plain(t, got.ProtoReflect())
			plain(t, want.ProtoReflect())
			if !proto.Equal(got, want) {
				t.Errorf("%s in %s differs from its JSON", name, asked)
			}
		}
	}
}

// plain writes values of any type, which are carried as YAML, in one way.
func plain(t *testing.T, message protoreflect.Message) {
	t.Helper()
	if value, ok := message.Interface().(*openapi_v3.Any); ok {
		json, err := yaml.YAMLToJSON([]byte(value.Yaml))
		check(t, err)
		value.Yaml = string(json)
		return
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				plain(t, value.List().Get(i).Message())
			}
		default:
			plain(t, value.Message())
		}
		return true
	})
}
