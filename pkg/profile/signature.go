package profile

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"shopbell.dev/pkg/fault"
)

// Signature is one way in which a body is signed. A profile may have several at once.
type Signature struct {
	Scheme Scheme `yaml:"scheme"`
	// Header that holds the signature, for schemes that do not say so themselves.
	Header string `yaml:"header"`
	// Prefix of the signature in that header.
	Prefix string `yaml:"prefix"`
}

// Scheme is a way to sign.
type Scheme string

// The schemes.
const (
	// StandardWebhooks signs with HMAC-SHA256 over id, timestamp and body, in three headers of its own ("v1").
	StandardWebhooks Scheme = "standard-webhooks"
	// StandardWebhooksEd25519 signs the same with a private key, in the same headers ("v1a").
	StandardWebhooksEd25519 Scheme = "standard-webhooks-ed25519"
	// HMACSHA256Hex signs with HMAC-SHA256 over the body alone, in lower-case hex (SHOPS.md S1.19).
	HMACSHA256Hex Scheme = "hmac-sha256-hex"
)

var schemes = []string{string(StandardWebhooks), string(StandardWebhooksEd25519), string(HMACSHA256Hex)}

// usual is how a scheme signs for a webhook that asks for it and whose profile does not have it.
var usual = map[Scheme]Signature{
	StandardWebhooks:        {Scheme: StandardWebhooks},
	StandardWebhooksEd25519: {Scheme: StandardWebhooksEd25519},
	HMACSHA256Hex:           {Scheme: HMACSHA256Hex, Header: "X-Webhook-Signature", Prefix: "sha256="},
}

// UnmarshalYAML reads a scheme's name.
func (s *Scheme) UnmarshalYAML(node *yaml.Node) error {
	if !slices.Contains(schemes, node.Value) {
		return fmt.Errorf("line %d: signature scheme %q is not known%s", node.Line, node.Value, fault.DidYouMean(node.Value, schemes))
	}
	*s = Scheme(node.Value)
	return nil
}

// HasHeader says whether the scheme leaves it to the profile which header holds its signature.
func (s Scheme) HasHeader() bool { return usual[s].Header != "" }

// Signing gives the ways in which a webhook's requests are signed that asks for schemes by name; without any they are
// the profile's. A scheme of the profile signs as the profile says, another as is usual. What cannot be is an Invalid
// fault on the field "signatures".
func (p *Profile) Signing(names []string) ([]Signature, error) {
	if len(names) == 0 {
		return p.Signatures, nil
	}
	var out []Signature
	for i, name := range names {
		field, scheme := fmt.Sprintf("signatures[%d]", i), Scheme(name)
		if !slices.Contains(schemes, name) {
			return nil, fault.Field(field, "signature scheme %q is not known%s; there are %s", name, fault.DidYouMean(name, schemes), strings.Join(schemes, ", "))
		}
		if slices.Contains(names[:i], name) {
			return nil, fault.Field(field, "%q stands twice", name)
		}
		before := len(out)
		for _, s := range p.Signatures {
			if s.Scheme == scheme {
				out = append(out, s)
			}
		}
		if len(out) == before {
			out = append(out, usual[scheme])
		}
	}
	return out, nil
}
