// Package event reads events as their publishers write them: JSON, NDJSON, CloudEvents 1.0, or a bare body. Payloads
// are cut out of what came and never parsed and printed again.
package event

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// MaxBatch is the most events that one request holds.
const MaxBatch = 1000

// JSON is the content type of most events.
const JSON = "application/json"

// The fields of an event, in JSON and as query parameters.
var fields = []string{"id", "type", "action", "occurred_at", "environment", "key", "data"}

// Parse reads the events of an HTTP request whose body was read already. Their ids may be empty; shop and time of
// acceptance are. What is wrong is an Invalid fault that names the event's place (events[3].type), or the place in the
// text.
func Parse(header http.Header, query url.Values, body []byte) ([]contract.Event, error) {
	if query.Has("type") {
		e, err := bare(header, query, body)
		return []contract.Event{e}, err
	}
	for name := range query {
		return nil, fault.Field(name, "the parameter is not known here; with ?type=… the body is one event's data, without it the body is the event")
	}
	if header.Get("Ce-Specversion") != "" {
		e, err := cloudBinary(header, body)
		return []contract.Event{e}, err
	}
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		media = ""
	}
	switch media {
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return lines(body)
	case "application/cloudevents+json":
		return oneOrMany(body, cloudStructured)
	case "application/cloudevents-batch+json":
		return oneOrMany(body, cloudStructured)
	}
	return oneOrMany(body, object)
}

func oneOrMany(body []byte, parse func([]byte) (contract.Event, error)) ([]contract.Event, error) {
	if err := CheckJSON(body); err != nil {
		return nil, err
	}
	list, ok := items(body)
	if !ok {
		e, err := parse(body)
		return []contract.Event{e}, err
	}
	return many(len(list), func(i int) (contract.Event, error) { return parse(list[i]) })
}

// lines reads NDJSON: an event a line; empty lines are passed over.
func lines(body []byte) ([]contract.Event, error) {
	var list [][]byte
	var at []int
	n := 0
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		if n++; len(bytes.TrimSpace(line)) > 0 {
			list, at = append(list, line), append(at, n)
		}
	}
	return many(len(list), func(i int) (contract.Event, error) {
		if err := checkJSONFrom(at[i], list[i]); err != nil {
			return contract.Event{}, err
		}
		return object(list[i])
	})
}

func many(n int, parse func(int) (contract.Event, error)) ([]contract.Event, error) {
	switch {
	case n == 0:
		return nil, fault.Field("events", "the list is empty; send at least one event")
	case n > MaxBatch:
		return nil, fault.Field("events", "there are %d; at most %d are taken at once: send them in parts", n, MaxBatch)
	}
	out := make([]contract.Event, n)
	var bad fault.Collector
	for i := range out {
		var err error
		out[i], err = parse(i)
		if err != nil {
			bad.Include(fmt.Sprintf("events[%d].", i), err)
		}
	}
	return out, bad.Err()
}

// object reads an event in our own form.
func object(text []byte) (contract.Event, error) {
	e := contract.Event{ContentType: JSON}
	list, ok := members(text)
	if !ok {
		return e, fault.Field("event", "an event is a JSON object, not %.40s", text)
	}
	var bad fault.Collector
	seen := map[string]bool{}
	for _, m := range list {
		if seen[m.name] {
			bad.Add(m.name, "it stands twice")
			continue
		}
		seen[m.name] = true
		if m.name == "data" {
			e.Data = m.value
			continue
		}
		if !slices.Contains(fields, m.name) {
			bad.Add(m.name, "the field is not known%s; what you want delivered belongs into data", fault.DidYouMean(m.name, fields))
			continue
		}
		setText(&e, m, &bad)
	}
	if !seen["data"] {
		bad.Add("data", "it is missing; it is what receivers get")
	}
	bad.Include("", Check(&e))
	return e, bad.Err()
}

func setText(e *contract.Event, m member, bad *fault.Collector) {
	s, err := m.text()
	if err != nil {
		bad.Add(m.name, "%v", err)
		return
	}
	if m.name == "id" && s == "" {
		bad.Include("", contract.CheckEventID(s))
	}
	*field(e, m.name) = s
}

// field is where a field of an event's JSON goes.
func field(e *contract.Event, name string) *string {
	switch name {
	case "id":
		return &e.ID
	case "type":
		return &e.Type
	case "action":
		return &e.Action
	case "occurred_at":
		return &e.OccurredAt
	case "environment":
		return &e.Environment
	case "key":
		return &e.Key
	}
	return new(string)
}

// bare reads an event whose data is the whole body and whose fields are query parameters.
func bare(header http.Header, query url.Values, body []byte) (contract.Event, error) {
	e := contract.Event{ContentType: header.Get("Content-Type"), Data: body}
	if e.ContentType == "" {
		e.ContentType = "application/octet-stream"
	}
	var bad fault.Collector
	for name, values := range query {
		switch {
		case name == "data" || !slices.Contains(fields, name):
			bad.Add(name, "the parameter is not known%s", fault.DidYouMean(name, fields[:len(fields)-1]))
		case len(values) > 1:
			bad.Add(name, "it stands twice")
		default:
			*field(&e, name) = values[0]
		}
	}
	bad.Include("", checkData(&e))
	bad.Include("", Check(&e))
	return e, bad.Err()
}

// checkData says what is wrong with data that came as a body of its own.
func checkData(e *contract.Event) error {
	if IsJSON(e) && !valid(e.Data) {
		return fault.Field("data", "its content type is %s, but %v", e.ContentType, CheckJSON(e.Data))
	}
	return nil
}

// FromProto reads an event from gRPC.
func FromProto(in *shopbellv1.Event) (contract.Event, error) {
	e := contract.Event{
		ID: in.GetId(), Type: in.GetType(), Action: in.GetAction(), OccurredAt: in.GetOccurredAt(), Environment: in.GetEnvironment(),
		Key: in.GetKey(), ContentType: in.GetContentType(), Data: in.GetData(),
	}
	var bad fault.Collector
	switch content := in.GetContent().(type) {
	case *shopbellv1.Event_Json:
		e.Data, e.ContentType = []byte(content.Json), JSON
		if err := CheckJSON(e.Data); err != nil {
			bad.Add("json", "%v", err)
		}
	case nil:
		bad.Add("data", "it is missing; it is what receivers get")
	}
	if e.ContentType == "" {
		e.ContentType = JSON
	}
	if _, isData := in.GetContent().(*shopbellv1.Event_Data); isData {
		bad.Include("", checkData(&e))
	}
	bad.Include("", Check(&e))
	return e, bad.Err()
}

// CloudEvents 1.0, JSON event format.
func cloudStructured(text []byte) (contract.Event, error) {
	e := contract.Event{ContentType: JSON}
	list, ok := members(text)
	if !ok {
		return e, fault.Field("event", "a CloudEvent is a JSON object, not %.40s", text)
	}
	var bad fault.Collector
	attributes := map[string]string{}
	var data, base64Data bool
	for _, m := range list {
		switch m.name {
		case "data", "data_base64":
			if data || base64Data {
				bad.Add(m.name, "the data stands twice; send one of data and data_base64, once")
				continue
			}
			if data, base64Data = m.name == "data", m.name == "data_base64"; data {
				e.Data = m.value
				continue
			}
			s, err := m.text()
			if err == nil {
				e.Data, err = base64.StdEncoding.DecodeString(s)
			}
			if err != nil {
				bad.Add(m.name, "it is not base64: %v", err)
			}
			e.ContentType = "application/octet-stream"
		default:
			if s, err := m.text(); err == nil { // extensions may be numbers and truths, too
				attributes[m.name] = s
			}
		}
	}
	if t := attributes["datacontenttype"]; t != "" {
		e.ContentType = t
	}
	switch {
	case base64Data:
		bad.Include("", checkData(&e))
	case !data:
		bad.Add("data", "it is missing; it is what receivers get")
	case e.Data[0] == '"' && !IsJSON(&e): // a payload that is not JSON stands as a string in the event
		if text, err := (member{"data", e.Data}).text(); err == nil {
			e.Data = []byte(text)
		}
	}
	bad.Include("", cloudAttributes(&e, func(name string) string { return attributes[name] }))
	return e, bad.Err()
}

// CloudEvents 1.0, HTTP binding, binary mode.
func cloudBinary(header http.Header, body []byte) (contract.Event, error) {
	e := contract.Event{ContentType: header.Get("Content-Type"), Data: body}
	if e.ContentType == "" {
		e.ContentType = JSON
	}
	var bad fault.Collector
	bad.Include("", checkData(&e))
	bad.Include("", cloudAttributes(&e, func(name string) string {
		v, err := url.PathUnescape(header.Get("Ce-" + name)) // the binding writes values percent-encoded
		if err != nil {
			return header.Get("Ce-" + name)
		}
		return v
	}))
	return e, bad.Err()
}

// cloudAttributes takes what an event needs from a CloudEvent's attributes. subject becomes the key; action, key and
// environment are taken from extensions of these names.
func cloudAttributes(e *contract.Event, get func(string) string) error {
	var bad fault.Collector
	if v := get("specversion"); v != "1.0" {
		bad.Add("specversion", "%q is not taken; send CloudEvents 1.0", v)
	}
	for _, name := range []string{"id", "source"} {
		if get(name) == "" {
			bad.Add(name, "it is missing; CloudEvents requires it")
		}
	}
	e.ID, e.Type, e.OccurredAt, e.Key = get("id"), get("type"), get("time"), get("subject")
	e.Action, e.Environment = get("action"), get("environment")
	if k := get("key"); k != "" {
		e.Key = k
	}
	bad.Include("", Check(e))
	return bad.Err()
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == JSON || strings.HasSuffix(media, "+json"))
}

// IsJSON says whether an event's data is JSON by its content type.
func IsJSON(e *contract.Event) bool { return e.ContentType == JSON || isJSON(e.ContentType) }

// Check says what is wrong with an event, whichever way it came. An empty id is good: it is given later.
func Check(e *contract.Event) error {
	var bad fault.Collector
	if e.ID != "" {
		bad.Include("", contract.CheckEventID(e.ID))
	}
	bad.Include("", contract.CheckEventType(e.Type))
	if e.OccurredAt != "" {
		if _, err := time.Parse(time.RFC3339Nano, e.OccurredAt); err != nil {
			bad.Add("occurred_at", "%q is no time; write RFC 3339 with a zone, such as 2026-05-01T10:30:00+02:00", e.OccurredAt)
		}
	}
	if e.Environment != "" && e.Environment != "live" && e.Environment != "test" {
		bad.Add("environment", "%q is neither live nor test", e.Environment)
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{{"action", e.Action, 64}, {"key", e.Key, 200}, {"content_type", e.ContentType, 200}} {
		switch {
		case len(f.value) > f.limit:
			bad.Add(f.name, "it has %d bytes; at most %d are taken", len(f.value), f.limit)
		case !utf8.ValidString(f.value):
			bad.Add(f.name, "%q is not UTF-8", f.value)
		case f.value != strings.TrimSpace(f.value) || strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			bad.Add(f.name, "%q has a line break, another control character, or a blank at an end", f.value)
		}
	}
	return bad.Err()
}
