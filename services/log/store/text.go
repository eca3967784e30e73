package store

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Needle is a text that is looked for in the data of events, in any mixture of upper and lower case.
type Needle struct{ folded []byte }

// NewNeedle makes a needle of what somebody typed.
func NewNeedle(text string) Needle { return Needle{bytes.ToLower([]byte(text))} }

// In says whether data holds the text: as it stands there, or behind the escapes of JSON. Many a shop writes "M\u00fcller"
// and "https:\/\/" where its customer typed "Müller" and "https://".
func (n Needle) In(data []byte) bool {
	return bytes.Contains(bytes.ToLower(data), n.folded) ||
		bytes.IndexByte(data, '\\') >= 0 && bytes.Contains(bytes.ToLower(unescaped(data)), n.folded)
}

// unescaped is data with what the escapes of JSON stand for in their place. The data need not be JSON.
func unescaped(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' || i+1 == len(data) {
			out = append(out, data[i])
			continue
		}
		i++
		switch c := data[i]; c {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'u':
			r, length := escapedRune(data[i+1:])
			if length == 0 {
				out = append(out, '\\', 'u')
				continue
			}
			out = utf8.AppendRune(out, r)
			i += length
		default: // a quotation mark, a slash, a backslash
			out = append(out, c)
		}
	}
	return out
}

// escapedRune reads the digits behind "\u", and what follows when they are the first half of a pair. It gives how many
// bytes these are, 0 for what is no such escape.
func escapedRune(b []byte) (r rune, length int) {
	first, ok := hex4(b)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(first) && len(b) >= 10 && b[4] == '\\' && b[5] == 'u' {
		if second, ok := hex4(b[6:]); ok {
			if pair := utf16.DecodeRune(first, second); pair != utf8.RuneError {
				return pair, 10
			}
		}
	}
	return first, 4
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil
}

// What one search for text reads at most: some tenths of a second.
const (
	maxSearched     = 20_000   // deliveries
	maxSearchedData = 64 << 20 // bytes of data
	searchedAtOnce  = 100      // deliveries; their events' data is in memory at once
)

// Search lists the deliveries that a filter with a text chooses. list is for what the filter chooses but for its text,
// and events for the events of these deliveries, by their ids.
func Search(f Filter, list func(Filter) ([]State, error), events func([]State) (map[string]*EventRow, error)) (*Page, error) {
	page, needle, limit := &Page{}, NewNeedle(f.Text), f.Limit
	f.Limit = searchedAtOnce
	for read, size := 0, 0; ; {
		states, err := list(f)
		if err != nil {
			return nil, err
		}
		known, err := events(states)
		if err != nil {
			return nil, err
		}
		found := make(map[string]bool, len(known))
		for eventID, e := range known {
			found[eventID] = needle.In(e.Data)
			size += len(e.Data)
		}
		for _, s := range states {
			if found[s.EventID] {
				page.Deliveries = append(page.Deliveries, s.Proto())
			}
			if len(page.Deliveries) == limit {
				return page, nil
			}
		}
		if len(states) < f.Limit {
			return page, nil
		}
		f.Before = states[len(states)-1].ID
		if read += len(states); read >= maxSearched || size >= maxSearchedData {
			page.ReadTo = f.Before
			return page, nil
		}
	}
}

// NewPage makes a page of rows.
func NewPage(states []State) *Page {
	page := &Page{Deliveries: make([]*shopbellv1.Delivery, len(states))}
	for i, s := range states {
		page.Deliveries[i] = s.Proto()
	}
	return page
}
