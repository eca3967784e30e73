package eventlog

import (
	"crypto/sha256"
	"encoding/base64"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
)

// A page token is the last id of a page, behind a hash of the list's filters: with other filters it would silently
// leave out what comes before that id.
const tokenHash = 8

// Strict, so that a token has one spelling only.
var tokenEncoding = base64.RawURLEncoding.Strict()

func pageToken(r *logv1.ListDeliveriesRequest, lastID string) string {
	return tokenEncoding.EncodeToString(append(hashOf(r), lastID...))
}

// parsePageToken gives the last id of the page before, empty for the first page.
func parsePageToken(r *logv1.ListDeliveriesRequest, token string) (lastID string, err error) {
	if token == "" {
		return "", nil
	}
	b, err := tokenEncoding.DecodeString(token)
	if err != nil || len(b) <= tokenHash || string(b[:tokenHash]) != string(hashOf(r)) {
		return "", fault.Field("page_token",
			"it is from a list with other filters, or damaged; start again without it, and then keep the filters as they are")
	}
	return string(b[tokenHash:]), nil
}

// hashOf is of the filters alone: the size of pages may change on the way.
func hashOf(r *logv1.ListDeliveriesRequest) []byte {
	filters := proto.CloneOf(r)
	filters.PageToken, filters.PageSize = "", 0
	// Deterministic within a release. Between two releases a token may become invalid, and says what to do.
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(filters)
	if err != nil {
		b = nil // a text that is not UTF-8, which gRPC does not let through
	}
	sum := sha256.Sum256(b)
	return sum[:tokenHash]
}
