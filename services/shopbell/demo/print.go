package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// width is how many columns a terminal has at least.
const width = 110

// printRequest prints a request whole, as its receiver gets it.
func printRequest(out io.Writer, title string, req *http.Request, body []byte, answer string) {
	_, _ = fmt.Fprintf(out, "── %s %s\n\n", title, strings.Repeat("─", max(3, width-4-utf8.RuneCountInString(title))))
	_, _ = fmt.Fprintf(out, "   %s %s %s\n   Host: %s\n", req.Method, req.URL.Path, req.Proto, req.Host)
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		for _, value := range req.Header[name] {
			_, _ = fmt.Fprintf(out, "   %s: %s\n", name, value)
		}
	}
	_, _ = fmt.Fprintf(out, "\n   %s\n\n   → %s\n\n", strings.ReplaceAll(lines(body), "\n", "\n   "), answer)
}

// lines breaks JSON into lines that fit a terminal; every name and value stays as it came. What is no JSON stays as it is.
func lines(body []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, body) != nil {
		return string(body)
	}
	p := &paper{}
	p.value(compact.Bytes(), 0, 0)
	return p.text.String()
}

// paper is what is printed so far.
type paper struct {
	text   bytes.Buffer
	column int
}

func (p *paper) write(text []byte) {
	p.text.Write(text)
	p.column += utf8.RuneCount(text)
}

func (p *paper) newLine(indent int) {
	p.text.WriteString("\n" + strings.Repeat(" ", indent))
	p.column = indent
}

// value prints a value behind which so many columns are taken: on this line if it fits, otherwise as many of its parts on
// each line as do.
func (p *paper) value(v []byte, indent, behind int) {
	fits := func(text []byte) bool { return p.column+utf8.RuneCount(text)+behind <= width-6 }
	if fits(v) || v[0] != '{' && v[0] != '[' {
		p.write(v)
		return
	}
	p.write(v[:1])
	p.newLine(indent + 2)
	broken := false // the part before
	for i, item := range parts(v[1 : len(v)-1]) {
		if i > 0 {
			p.write([]byte(","))
			if !broken && fits(append([]byte(" ,"), item...)) {
				p.write([]byte(" "))
			} else {
				p.newLine(indent + 2)
			}
		}
		broken = !fits(append([]byte(","), item...))
		if at := bytes.IndexAny(item, "{["); at > 0 && bytes.HasSuffix(item[:at], []byte(`":`)) {
			p.write(item[:at])
			item = item[at:]
		}
		p.value(item, indent+2, 1)
	}
	p.newLine(indent)
	p.write(v[len(v)-1:])
}

// parts takes the inside of a compact object or list apart at its commas.
func parts(inside []byte) (out [][]byte) {
	depth, from := 0, 0
	for at := 0; at < len(inside); at++ {
		switch inside[at] {
		case '"':
			for at++; inside[at] != '"'; at++ {
				if inside[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				out, from = append(out, inside[from:at]), at+1
			}
		}
	}
	return append(out, inside[from:])
}
