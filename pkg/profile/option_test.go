package profile

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const withOptions = `
name: own
open_catalog: true
envelope: '{"data":{data}}'
headers: {X-Type: "{type}", X-Own: a}
signatures: [{scheme: hmac-sha256-hex, header: X-Shop-Signature, prefix: "v0="}, {scheme: hmac-sha256-hex, header: X-Other}]
options:
  - {name: bare, envelope: "", headers: {X-Own: b, X-Key: "{key}"}}
  - {name: renamed, rename: {at: [a, b], names: {x: y}}}
policy: {timeout: 5s, success_codes: [2xx]}
`

func ownProfile(t *testing.T) *Profile {
	t.Helper()
	set, err := Load(fstest.MapFS{"own.yaml": {Data: []byte(withOptions)}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := set.Get("own")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Profile) headersFor(value func(string) string) map[string]string {
	out := map[string]string{}
	for name, v := range p.Headers {
		out[name] = v.For(value)
	}
	return out
}

func TestOptions_ChangeWhatTheyNameAndNothingElse(t *testing.T) {
	p := ownProfile(t)
	value := func(place string) string { return "<" + place + ">" }
	with, err := p.With([]string{"renamed", "bare"})
	if err != nil {
		t.Fatal(err)
	}
	if before, after, enveloped := with.Around("x", []byte("1"), value); len(before)+len(after) > 0 || enveloped {
		t.Errorf("bare has an envelope: %s %s", before, after)
	}
	if diff := cmp.Diff(map[string]string{"X-Type": "<type>", "X-Own": "b", "X-Key": "<key>"}, with.headersFor(value)); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Rename{{At: []string{"a", "b"}, Names: map[string]string{"x": "y"}}}, with.Renames); diff != "" {
		t.Errorf("renames (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(p.Policy, with.Policy); diff != "" || with.Name != "own" {
		t.Errorf("%s has another policy (-want +got):\n%s", with.Name, diff)
	}
	// The profile itself is as it was, for those who ask for nothing.
	if diff := cmp.Diff(map[string]string{"X-Type": "<type>", "X-Own": "a"}, p.headersFor(value)); diff != "" || p.Renames != nil || p.Envelope.String() == "" {
		t.Errorf("the profile itself has changed: %+v\n%s", p, diff)
	}
	if same, err := p.With(nil); same != p || err != nil {
		t.Errorf("without options: %v, %v, want the profile itself", same, err)
	}
	for names, want := range map[string]string{
		"bear":      `options[0]: profile own has no option "bear" (did you mean "bare"?); it has bare, renamed`,
		"bare bare": `options[1]: "bare" stands twice`,
		"":          `options[0]: profile own has no option ""; it has bare, renamed`,
	} {
		if _, err := p.With(strings.Split(names, " ")); err == nil || err.Error() != want {
			t.Errorf("options %q: %v, want %s", names, err, want)
		}
	}
	if _, err := (&Profile{Name: "x"}).With([]string{"bare"}); err == nil || err.Error() != `options[0]: profile x has no option "bare": it has none` {
		t.Errorf("a profile without options: %v", err)
	}
}

func TestHeaderValue_HoldsWhatAHeaderCan(t *testing.T) {
	p := ownProfile(t)
	for text, want := range map[string]string{
		"order:1042": "order:1042", "a b": "a%20b", "50%": "50%25", `"x"`: "%22x%22", "é": "%C3%A9", "a\r\nHost: b": "a%0D%0AHost:%20b", "\x00\x7f": "%00%7F", "": "",
	} {
		if got := p.Headers["X-Type"].For(func(string) string { return text }); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestSigning_IsTheProfilesUnlessSchemesAreAskedFor(t *testing.T) {
	p := ownProfile(t)
	hex := []Signature{{HMACSHA256Hex, "X-Shop-Signature", "v0="}, {HMACSHA256Hex, "X-Other", ""}}
	for _, row := range []struct {
		name  string
		of    *Profile
		asked []string
		want  []Signature
		err   string
	}{
		{"the profile's", p, nil, hex, ""},
		{"one of the profile, as the profile has it", p, []string{"hmac-sha256-hex"}, hex, ""},
		{"others beside it, in their order", p, []string{"standard-webhooks", "hmac-sha256-hex", "standard-webhooks-ed25519"}, []Signature{{Scheme: StandardWebhooks}, hex[0], hex[1], {Scheme: StandardWebhooksEd25519}}, ""},
		{"one that the profile does not have, as usual", &Profile{}, []string{"hmac-sha256-hex"}, []Signature{{HMACSHA256Hex, "X-Webhook-Signature", "sha256="}}, ""},
		{"none at all", &Profile{}, nil, nil, ""},
		{"an unknown one", p, []string{"standard-webhook"}, nil, `signatures[0]: signature scheme "standard-webhook" is not known (did you mean "standard-webhooks"?); there are standard-webhooks, standard-webhooks-ed25519, hmac-sha256-hex`},
		{"one twice", p, []string{"hmac-sha256-hex", "hmac-sha256-hex"}, nil, `signatures[1]: "hmac-sha256-hex" stands twice`},
	} {
		got, err := row.of.Signing(row.asked)
		if diff := cmp.Diff(row.want, got); diff != "" || (err == nil) != (row.err == "") || err != nil && err.Error() != row.err {
			t.Errorf("%s: %v, want %s\n%s", row.name, err, row.err, diff)
		}
	}
}
