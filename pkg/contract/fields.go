package contract

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// hdrFields is the header that says everything of an event or a delivery but its payload: fields with a blank between
// them, each a name, "=" and a value. It is one header, because each costs at every station: client and server make, search
// and take apart all of them.
const hdrFields = "Shopbell"

// formerFields is what the names of headers begin with in the form before, in which each field had a header of its own:
// Shopbell-Accepted-At. What was stored so is still read.
const formerFields = "Shopbell-"

// fields are those of one message, as its header holds them.
type fields struct{ strings.Builder }

// fieldsRoom is as much as most messages' fields take.
const fieldsRoom = 384

func (f *fields) name(name string) {
	if f.Len() == 0 {
		f.Grow(fieldsRoom)
	} else {
		f.WriteByte(' ')
	}
	f.WriteString(name)
	f.WriteByte('=')
}

// text leaves out what is empty. What would end the field stands as in a URL: %20.
func (f *fields) text(name, value string) {
	if value == "" {
		return
	}
	f.name(name)
	const hex = "0123456789ABCDEF"
	plain := 0 // what stands before it is written
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c == '%' || c == 0x7f {
			f.WriteString(value[plain:i])
			f.Write([]byte{'%', hex[c>>4], hex[c&15]})
			plain = i + 1
		}
	}
	f.WriteString(value[plain:])
}

// number leaves out 0.
func (f *fields) number(name string, value uint64) {
	if value > 0 {
		f.name(name)
		var digits [20]byte
		f.Write(strconv.AppendUint(digits[:0], value, 10))
	}
}

// time writes the nanoseconds since 1970.
func (f *fields) time(name string, value time.Time) {
	f.name(name)
	var digits [20]byte
	f.Write(strconv.AppendInt(digits[:0], value.UnixNano(), 10))
}

func (f *fields) flag(name string, on bool) {
	if on {
		f.number(name, 1)
	}
}

// message makes the message that has these fields. There is room for the trace's header, and for one more.
func (f *fields) message(subject, id string, data []byte) *nats.Msg {
	h := make(nats.Header, 4)
	h[hdrFields] = []string{f.String()}
	h[jetstream.MsgIDHeader] = []string{id}
	return &nats.Msg{Subject: subject, Header: h, Data: data}
}

// allFields gives the fields of a message, in either form.
func allFields(h nats.Header) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		text := get(h, hdrFields)
		if text == "" {
			formerly(h, yield)
			return
		}
		for more := true; more; {
			var field string
			field, text, more = strings.Cut(text, " ")
			name, value, _ := strings.Cut(field, "=")
			if strings.IndexByte(value, '%') >= 0 {
				value = unescape(value)
			}
			if !yield(name, value) {
				return
			}
		}
	}
}

func formerly(h nats.Header, yield func(name, value string) bool) {
	for header, values := range h {
		if name, ok := strings.CutPrefix(header, formerFields); ok && len(values) > 0 && !yield(strings.ToLower(name), values[0]) {
			return
		}
	}
}

// unescape reads what text wrote. It leaves as they are percent signs that text did not write.
func unescape(value string) string {
	out := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '%' && i+2 < len(value) {
			if c, err := strconv.ParseUint(value[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, value[i])
	}
	return string(out)
}

// parseTime reads a time: what names it, for the error.
func parseTime(what, value string) (time.Time, error) {
	if nanos, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Unix(0, nanos).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, value) // as the former form has it
	if err != nil {
		return t, fmt.Errorf("%s: %w", what, err)
	}
	return t, nil
}

func parseNumber(what, value string) (uint64, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return n, nil
}

func parseSmall(what, value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a number: %w", what, value, err)
	}
	return n, nil
}
