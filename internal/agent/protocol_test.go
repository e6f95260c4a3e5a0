package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// messagesOf are the types of all messages, by the protocol that has them.
var messagesOf = map[int]string{1: "5acc8e3d4a4bce66"}

// TestProtocol demands a new protocol number when a type changes that a host and an agent exchange. An agent of the version before would
// ignore a new field, or misread a changed one.
func TestProtocol(t *testing.T) {
	var text strings.Builder
	seen := map[reflect.Type]bool{}
	for _, one := range []any{request{}, answer{}, printed{}, done{}, arm{}, wireError{}} {
		describe(&text, reflect.TypeOf(one), seen)
	}
	sum := sha256.Sum256([]byte(text.String()))
	if got := hex.EncodeToString(sum[:8]); messagesOf[protocol] != got {
		t.Errorf("the types of protocol %d are %s, want %s: raise protocol, and add its types here, unless no version with this number was released. They are now:\n%s",
			protocol, got, messagesOf[protocol], text.String())
	}
}

// describe writes the fields of a type that JSON contains, and of the types in them.
func describe(w *strings.Builder, t reflect.Type, seen map[reflect.Type]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		describe(w, t.Elem(), seen)
	case reflect.Map:
		describe(w, t.Key(), seen)
		describe(w, t.Elem(), seen)
	case reflect.Struct:
		if seen[t] {
			return
		}
		seen[t] = true
		fmt.Fprintf(w, "%s\n", t)
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous) {
				fmt.Fprintf(w, "\t%s %s %s\n", f.Name, f.Type, f.Tag.Get("json"))
			}
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous) {
				describe(w, f.Type, seen)
			}
		}
	}
}
