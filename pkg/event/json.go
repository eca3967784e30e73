package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"shopbell.dev/pkg/fault"
)

// CheckJSON says where a text stops being JSON.
func CheckJSON(text []byte) error { return checkJSONFrom(1, text) }

// checkJSONFrom is checkJSON for a text that begins in this line of what came.
func checkJSONFrom(line int, text []byte) error {
	if valid(text) {
		return nil
	}
	var syntax *json.SyntaxError
	var any json.RawMessage
	err := json.Unmarshal(text, &any)
	if !errors.As(err, &syntax) {
		return fault.New(fault.Invalid, "the body is not JSON: %v", err)
	}
	column := 1
	for _, c := range text[:max(0, min(int(syntax.Offset)-1, len(text)))] {
		if column++; c == '\n' {
			line, column = line+1, 1
		}
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return fault.New(fault.Invalid, "the body is empty: send an event, or an array of them, as JSON")
	}
	return fault.New(fault.Invalid, "the body is not JSON: line %d, column %d: %v", line, column, syntax)
}

// member is a name and its value in a JSON object; the value is the bytes as they stand.
type member struct {
	name  string
	value []byte
}

// members takes a JSON object apart. The text must be valid JSON; for anything but an object ok is false.
func members(object []byte) (out []member, ok bool) {
	at := skipBlank(object, 0)
	if at >= len(object) || object[at] != '{' {
		return nil, false
	}
	at = skipBlank(object, at+1)
	for object[at] != '}' {
		end := skipString(object, at)
		name, err := unquote(object[at:end])
		if err != nil {
			return nil, false
		}
		at = skipBlank(object, skipBlank(object, end)+1) // past the colon
		end = skipValue(object, at)
		out = append(out, member{name, object[at:end]})
		if at = skipBlank(object, end); object[at] == ',' {
			at = skipBlank(object, at+1)
		}
	}
	return out, true
}

// items takes a JSON array apart. The text must be valid JSON; for anything but an array ok is false.
func items(array []byte) (out [][]byte, ok bool) {
	at := skipBlank(array, 0)
	if at >= len(array) || array[at] != '[' {
		return nil, false
	}
	at = skipBlank(array, at+1)
	for array[at] != ']' {
		end := skipValue(array, at)
		out = append(out, array[at:end])
		if at = skipBlank(array, end); array[at] == ',' {
			at = skipBlank(array, at+1)
		}
	}
	return out, true
}

func skipBlank(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r') {
		at++
	}
	return at
}

// skipString gives the place behind the string that begins here.
func skipString(text []byte, at int) int {
	for at++; ; at += 2 {
		for plain[text[at]] {
			at++
		}
		if text[at] == '"' {
			return at + 1
		}
	}
}

// skipValue gives the place behind the value that begins here.
func skipValue(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			at = skipString(text, at)
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			if depth == 0 {
				return at
			}
			depth--
			at++
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return at
			}
			at++
			continue
		default: // a number, true, false, null
			for at < len(text) && !strings.ContainsRune(",:]} \t\n\r", rune(text[at])) {
				at++
			}
		}
		if depth == 0 {
			return at
		}
	}
	return at
}

// text reads a member that must be a string.
func (m member) text() (string, error) {
	if m.value[0] != '"' {
		return "", fmt.Errorf("it must be a string, not %.40s", m.value)
	}
	return unquote(m.value)
}

// unquote reads a string of valid JSON.
func unquote(quoted []byte) (string, error) {
	inside := quoted[1 : len(quoted)-1]
	for _, c := range inside {
		if c == '\\' || c >= utf8.RuneSelf {
			var s string
			err := json.Unmarshal(quoted, &s)
			return s, err
		}
	}
	return string(inside), nil
}
