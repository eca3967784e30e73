package event

import "encoding/json"

// Rename gives a JSON text in which members have other names: those of the objects to which the path at leads, by names
// from old to new. Lists on the way stand for each of their entries. Everything but the names stays byte for byte; a text
// in which nothing is renamed is given back as it is. The text must be valid JSON.
func Rename(text []byte, at []string, names map[string]string) []byte {
	r := renaming{text: text, names: names}
	r.walk(0, at)
	if r.done == 0 {
		return text
	}
	return append(r.out, text[r.done:]...)
}

type renaming struct {
	text  []byte
	names map[string]string
	out   []byte
	done  int // how much of text is in out
}

// walk goes through the value that begins here.
func (r *renaming) walk(at int, path []string) {
	switch at = skipBlank(r.text, at); r.text[at] {
	case '[':
		for at = skipBlank(r.text, at+1); r.text[at] != ']'; at = r.next(at) {
			r.walk(at, path)
		}
	case '{':
		for at = skipBlank(r.text, at+1); r.text[at] != '}'; {
			end := skipString(r.text, at)
			value := skipBlank(r.text, skipBlank(r.text, end)+1) // past the colon
			r.member(at, end, value, path)
			at = r.next(value)
		}
	}
}

// member goes through the member whose name stands from at to end.
func (r *renaming) member(at, end, value int, path []string) {
	var name string
	if err := json.Unmarshal(r.text[at:end], &name); err != nil {
		return // a string of valid JSON is always one
	}
	if len(path) > 0 {
		if name == path[0] {
			r.walk(value, path[1:])
		}
		return
	}
	to, ok := r.names[name]
	if !ok {
		return
	}
	quoted, err := json.Marshal(to)
	if err != nil {
		return // a string is never refused
	}
	r.out = append(append(r.out, r.text[r.done:at]...), quoted...)
	r.done = end
}

// next gives the place of what follows a value in its list or object.
func (r *renaming) next(value int) int {
	at := skipBlank(r.text, skipValue(r.text, value))
	if r.text[at] == ',' {
		at = skipBlank(r.text, at+1)
	}
	return at
}
