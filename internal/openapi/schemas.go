package openapi

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/swaggest/jsonschema-go"
)

// schemas makes the schemas of Go types. named are those of structs, by the name of the type.
type schemas struct {
	reflector jsonschema.Reflector
	named     map[string]map[string]any
	types     map[string]reflect.Type
	err       error
}

func newSchemas() *schemas {
	s := &schemas{named: map[string]map[string]any{}, types: map[string]reflect.Type{}}
	s.reflector.DefaultOptions = []func(*jsonschema.ReflectContext){
		jsonschema.DefinitionsPrefix("#/components/schemas/"),
		jsonschema.RootRef,
		envelopNull,
		jsonschema.CollectDefinitions(s.collect),
		jsonschema.InterceptDefName(s.name),
		jsonschema.InterceptSchema(require),
		jsonschema.InterceptNullability(fixNull),
	}
	return s
}

// of returns the schema of a type, which is a reference to a named one for a struct.
func (s *schemas) of(t reflect.Type) (map[string]any, error) {
	schema, err := s.reflector.Reflect(reflect.New(t).Elem().Interface())
	if err != nil {
		return nil, err
	}
	if s.err != nil {
		return nil, s.err
	}
	return schema.ToSchemaOrBool().ToSimpleMap()
}

func (s *schemas) collect(name string, schema jsonschema.Schema) {
	simple, err := schema.ToSchemaOrBool().ToSimpleMap()
	if err != nil && s.err == nil {
		s.err = err
	}
	s.named[name] = simple
}

// name is the name of a type without its package.
func (s *schemas) name(t reflect.Type, _ string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if known, ok := s.types[t.Name()]; ok && known != t && s.err == nil {
		s.err = fmt.Errorf("the types %s and %s have the same name in the document; rename one", known, t)
	}
	s.types[t.Name()] = t
	return t.Name()
}

// envelopNull writes a struct that may be null as a choice of null and a reference.
func envelopNull(c *jsonschema.ReflectContext) { c.EnvelopNullability = true }

// require marks the fields that every answer has.
func require(p jsonschema.InterceptSchemaParams) (stop bool, err error) {
	if t := p.Value.Type(); p.Processed && t.Kind() == reflect.Struct && len(p.Schema.Properties) > 0 {
		p.Schema.Required = requiredOf(t)
	}
	return false, nil
}

// requiredOf returns the fields of a struct that encoding/json always writes.
func requiredOf(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		name, options, tagged := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			if f.Type.Kind() == reflect.Struct { // the fields of a nil pointer are not written
				names = append(names, requiredOf(f.Type)...)
			}
		case name == "-" && !tagged, !f.IsExported(), strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero"):
		case name == "":
			names = append(names, f.Name)
		default:
			names = append(names, name)
		}
	}
	return names
}

// fixNull removes null from lists, because an empty one is [] in every answer. It also removes the type beside a choice of null and a
// reference (jsonschema-go 0.3.78), with which null would not be valid.
func fixNull(p jsonschema.InterceptNullabilityParams) {
	if p.NullAdded && p.Type.Kind() == reflect.Slice {
		p.Schema.RemoveType(jsonschema.Null)
	}
	if p.RefDef != nil && len(p.Schema.AnyOf) == 2 {
		p.Schema.Type, p.Schema.AnyOf[1].TypeObject.Type = nil, nil
	}
}
