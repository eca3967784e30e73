package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
)

// printer reads and prints the API's JSON: snake_case, strict, and with payloads as they are in place of base64.
type printer struct{}

var (
	marshal   = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}
	unmarshal = protojson.UnmarshalOptions{}
	// inner reads what is not a message itself, as the part of a request that a path names as its body.
	inner = runtime.JSONPb{MarshalOptions: marshal, UnmarshalOptions: unmarshal}
)

// ContentType is JSON.
func (printer) ContentType(any) string { return event.JSON }

// Marshal prints a message. A bytes field is printed as the text that it is, as a data URI when it is none, and an
// event's data as the JSON value that it is: its bytes are put in as they are, and never parsed and printed.
func (printer) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return inner.Marshal(v)
	}
	// protojson puts blanks where it likes, so that nobody relies on them; people read this.
	return printed(m, func(out *bytes.Buffer, text []byte) error { return json.Indent(out, text, "", "  ") })
}

// line prints a message on one line, as Marshal does otherwise. It is for messages without events' data, which keep line breaks of their own.
func (printer) line(m proto.Message) ([]byte, error) { return printed(m, json.Compact) }

func printed(m proto.Message, layout func(out *bytes.Buffer, text []byte) error) ([]byte, error) {
	var at places
	if _, err := rand.Read(at.salt[:]); err != nil {
		return nil, err
	}
	m = proto.Clone(m)
	at.mark(m.ProtoReflect())
	text, err := marshal.Marshal(m)
	if err != nil {
		return nil, err
	}
	var lines bytes.Buffer
	if err := layout(&lines, text); err != nil {
		return nil, err
	}
	return append(at.fill(lines.Bytes()), '\n'), nil
}

// places are the bytes fields of a message. Each is given a value that nothing else has, is printed so, and that is
// then replaced by what is to stand there.
type places struct {
	salt  [14]byte
	texts [][]byte
}

func (p *places) mark(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
		case f.Kind() == protoreflect.BytesKind && !f.IsList():
			p.texts = append(p.texts, shown(m, f, v.Bytes()))
			m.Set(f, protoreflect.ValueOfBytes(p.token(len(p.texts)-1)))
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				p.mark(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			p.mark(v.Message())
		}
		return true
	})
}

func (p *places) token(n int) []byte { return binary.BigEndian.AppendUint32(p.salt[:], uint32(n)) }

// fill replaces the tokens by what is to stand there. They stand in the order of the fields, which need not be ours.
func (p *places) fill(text []byte) []byte {
	prefix := `"` + base64.StdEncoding.EncodeToString(p.salt[:])[:18] // of 18 characters, no bit is of what follows
	length := base64.StdEncoding.EncodedLen(len(p.salt)+4) + 2
	var out []byte
	for {
		at := bytes.Index(text, []byte(prefix))
		if at < 0 || len(p.texts) == 0 {
			return append(out, text...)
		}
		token, err := base64.StdEncoding.DecodeString(string(text[at+1 : at+length-1]))
		if err != nil {
			return append(out, text...)
		}
		out = append(out, text[:at]...)
		out = append(out, p.texts[binary.BigEndian.Uint32(token[len(p.salt):])]...)
		text = text[at+length:]
	}
}

// shown is what stands for a bytes field.
func shown(m protoreflect.Message, f protoreflect.FieldDescriptor, value []byte) []byte {
	switch f.FullName() {
	case "shopbell.v1.Event.data":
		contentType := m.Get(m.Descriptor().Fields().ByName("content_type")).String()
		if event.IsJSON(&contract.Event{ContentType: contentType}) && json.Valid(value) {
			return value
		}
	case "shopbell.v1.ProfileEvent.sample", "shopbell.v1.ProfileEvent.schema":
		if json.Valid(value) {
			return value
		}
	}
	text := string(value)
	if !utf8.Valid(value) {
		text = "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(value)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a string is never refused
	return bytes.TrimRight(out.Bytes(), "\n")
}

// NewEncoder prints messages of a stream.
func (p printer) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		text, err := p.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
}

// Unmarshal reads JSON into a message, or into a part of one.
func (printer) Unmarshal(data []byte, v any) error { return explainJSON(inner.Unmarshal(data, v), v) }

// NewDecoder reads JSON from a request.
func (printer) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
		switch {
		case err != nil:
			return fmt.Errorf("the body did not arrive whole: %w", err)
		case len(body) > maxBody:
			return fmt.Errorf("the body is larger than %d bytes", maxBody)
		case len(bytes.TrimSpace(body)) == 0:
			return io.EOF
		}
		if err := event.CheckJSON(body); err != nil {
			return err
		}
		return explainJSON(inner.Unmarshal(body, v), v)
	})
}

const maxBody = 1 << 20

var (
	place        = regexp.MustCompile(`\(line (\d+):(\d+)\): (.*)$`)
	unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)
	wrongValue   = regexp.MustCompile(`invalid value for \w+ field (\w+): (.*)$`)
	wrongKnown   = regexp.MustCompile(`invalid (google\.protobuf\.\w+) value (.*)$`)
)

// explainJSON makes of what the JSON library says something that a caller can act on.
func explainJSON(err error, v any) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	text := err.Error()
	where := ""
	if m := place.FindStringSubmatch(text); m != nil {
		where, text = fmt.Sprintf(" (line %s, column %s)", m[1], m[2]), m[3]
	}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("%s: the field is not known%s%s", m[1], fault.DidYouMean(m[1], fieldNames(v)), where)
	}
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%s: %s cannot stand here%s", m[1], m[2], where)
	}
	if m := wrongKnown.FindStringSubmatch(text); m != nil {
		what := map[string]string{
			"google.protobuf.Duration":  `a time in seconds with its unit, such as "5s" or "0.5s"`,
			"google.protobuf.Timestamp": `a time such as "2026-05-01T10:30:00Z"`,
		}[m[1]]
		return fmt.Errorf("%s is not %s%s", m[2], what, where)
	}
	return fmt.Errorf("the body is not the JSON that is wanted: %s%s", text, where)
}

// fieldNames are the names of all fields that may stand in v.
func fieldNames(v any) (names []string) {
	m, ok := v.(proto.Message)
	if !ok { // a pointer to a message's pointer, where a path names a part as its body
		if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() {
			m, ok = reflect.Zero(p.Elem().Type()).Interface().(proto.Message)
		}
	}
	if !ok {
		return nil
	}
	seen := map[protoreflect.FullName]bool{}
	var walk func(d protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || !strings.HasPrefix(string(d.FullName()), "shopbell.") {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			names = append(names, string(f.Name()))
			if f.Message() != nil && !f.IsMap() {
				walk(f.Message())
			}
		}
	}
	walk(m.ProtoReflect().Descriptor())
	return names
}

// strictQuery reads query parameters and refuses those that nobody knows, or that stand in the path or the body.
type strictQuery struct{ runtime.DefaultQueryParser }

// Parse reads the parameters into a request.
func (q strictQuery) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	var known []string
	for i := range fields.Len() {
		if f := fields.Get(i); !filter.HasCommonPrefix([]string{string(f.Name())}) {
			known = append(known, string(f.Name()))
		}
	}
	for name := range values {
		first, _, _ := strings.Cut(name, ".")
		f := fields.ByName(protoreflect.Name(first))
		if f == nil || filter.HasCommonPrefix([]string{first}) || name != first && f.Message() == nil {
			return fmt.Errorf("%s: the parameter is not known%s", name, fault.DidYouMean(name, known))
		}
	}
	err := q.DefaultQueryParser.Parse(m, values, filter)
	if err == nil {
		return nil
	}
	for name, value := range values { // one of them is wrong; which, the parser says in words of its own
		f := fields.ByName(protoreflect.Name(name))
		if f == nil || !strings.Contains(err.Error(), strconv.Quote(name)) {
			continue
		}
		return fmt.Errorf("%s: %q is not %s", name, strings.Join(value, ","), wanted(f))
	}
	return err
}

// wanted says what a field's value looks like.
func wanted(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
		return `a time such as "2026-05-01T10:30:00Z"`
	case f.Kind() == protoreflect.BoolKind:
		return "true or false"
	case f.Kind() == protoreflect.StringKind:
		return "one text"
	}
	return "a number"
}

var fieldFirst = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.\[\]-]*): (.*)`)

// forCaller makes of statuses that come from grpc itself, or from grpc-gateway, something that a caller can act on.
func forCaller(err error) error {
	st, ok := status.FromError(err)
	if !ok || len(st.Details()) > 0 {
		return err
	}
	switch st.Code() {
	case codes.InvalidArgument: // grpc-gateway leaves the text alone, which begins with the field
		if m := fieldFirst.FindStringSubmatch(st.Message()); m != nil {
			return fault.Field(m[1], "%s", m[2])
		}
	case codes.Unavailable: // grpc names addresses of ours
		return fault.Away(2*time.Second, "a service behind the gateway cannot be reached; try again")
	}
	return err
}
