package eventlog

import "testing"

func TestTrouble_SaysAllThereIs(t *testing.T) {
	t.Parallel()
	said := "nothing yet"
	trouble := &trouble{tell: func(text string) { said = text }}
	for _, row := range []struct{ kind, text, want string }{
		{"store", "", ""},
		{"store", "its store takes nothing", "its store takes nothing"},
		{"lag", "it is behind by 3 events", "its store takes nothing; it is behind by 3 events"},
		{"store", "", "it is behind by 3 events"},
		{"lag", "", ""},
	} {
		if trouble.note(row.kind, row.text); said != row.want {
			t.Errorf("%s %q: got %q, want %q", row.kind, row.text, said, row.want)
		}
	}
}
