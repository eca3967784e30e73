package store

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxKey is how long a text may be that stands in an index: three of them fit into PostgreSQL's 2,704 bytes.
const maxKey = 500

// Text is s as every database can hold it: PostgreSQL takes neither NUL nor invalid UTF-8. Bytes of that kind are
// written as \x00, so that a reader sees what was there. Text that is fine stays as it is.
func Text(s string) string {
	if strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == 0 || r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[0])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// Key is Text for what is looked up: ids and names. One that is too long for an index is cut, and told apart from
// others by a hash. Who looks for a key must pass it through here, too.
func Key(s string) string {
	s = Text(s)
	if len(s) <= maxKey {
		return s
	}
	hash := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:maxKey-40], "") + fmt.Sprintf("… %x", hash[:16])
}

// Keys are the keys of several.
func Keys(texts []string) []string {
	keys := make([]string, len(texts))
	for i, s := range texts {
		keys[i] = Key(s)
	}
	return keys
}

// Time is a timestamp as every database can hold it: whole microseconds between the years 1 and 9999, UTC. What is
// absent or invalid is the zero time.
func Time(ts *timestamppb.Timestamp) time.Time {
	if !ts.IsValid() {
		return time.Time{}
	}
	return ts.AsTime().Truncate(time.Microsecond)
}

// blob makes bytes of a message, even if a text in it is not UTF-8, which protobuf refuses. It is never nil, which a
// database would take for null.
func blob(m proto.Message) []byte {
	options := proto.MarshalOptions{Deterministic: true}
	b, err := options.MarshalAppend([]byte{}, m)
	if err != nil {
		m = proto.Clone(m)
		repair(m.ProtoReflect())
		b, _ = options.MarshalAppend([]byte{}, m) // with all texts repaired, nothing is left to fail
	}
	return b
}

func repair(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			repairMap(field, v.Map())
		case field.IsList():
			for i := range v.List().Len() {
				v.List().Set(i, repaired(field, v.List().Get(i)))
			}
		default:
			m.Set(field, repaired(field, v))
		}
		return true
	})
}

func repairMap(field protoreflect.FieldDescriptor, entries protoreflect.Map) {
	entries.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		entries.Clear(k)
		entries.Set(repaired(field.MapKey(), k.Value()).MapKey(), repaired(field.MapValue(), v))
		return true
	})
}

func repaired(field protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(Text(v.String()))
	case protoreflect.MessageKind:
		repair(v.Message())
	}
	return v
}
