package rpc

import (
	"context"
	"crypto/subtle"
	"errors"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/key"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Keys says who may call. Its zero value lets everybody in.
type Keys struct {
	closed   bool
	operator key.Hash
	shops    *key.Directory // nil: there are none
}

// NewKeys lets in whoever has the operator's key or one of the shops'. Without an operator's key everybody is let in,
// but a call that carries a shop's key is held to it.
func NewKeys(operator string, shops *key.Directory) Keys {
	return Keys{operator != "", key.HashOf(operator), shops}
}

// Operator is the caller who has the operator's key.
const Operator = "operator"

// caller is who makes a call.
type caller struct {
	name string   // as Caller gives it
	key  *key.Key // a shop's; nil: the call reaches all shops
}

// errKey is what a caller without a good key is told.
var errKey = fault.New(fault.Unknown, "no key, or not a known one: send the header \"Authorization: Bearer <key>\"")

// identify says who sends this value of an authorization header.
func (k Keys) identify(authorization string) (caller, error) {
	text := bearer(authorization)
	hash := key.HashOf(text)
	if k.closed && subtle.ConstantTimeCompare(hash[:], k.operator[:]) == 1 {
		return caller{name: Operator}, nil
	}
	if k.shops != nil {
		if found := k.shops.Find(hash); found != nil {
			return caller{found.String(), found}, nil
		}
	}
	// Where everybody is let in, a key of ours is still held to what it opens: nothing, once it is deleted.
	if k.closed || k.shops != nil && key.Looks(text) {
		return caller{}, errKey
	}
	return caller{}, nil
}

// bearer gives the key in an authorization header's value, or nothing.
func bearer(authorization string) string {
	scheme, text, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(text)
}

// authorization is the value of a call's authorization header.
func authorization(ctx context.Context) string {
	if v := metadata.ValueFromIncomingContext(ctx, "authorization"); len(v) > 0 {
		return v[0]
	}
	return ""
}

// may says whether the caller's key opens a shop for what a scope allows.
func (c caller) may(shop, scope string) error {
	switch {
	case c.key == nil:
		return nil
	case shop != c.key.ShopId: // whatever the scope: what is not to be known is not there
		return fault.New(fault.NotFound, "there is no shop %q", shop)
	case !c.key.May(scope):
		return fault.New(fault.Forbidden, "the key %s may do %s, and this needs the scope %s; make a key that has it: POST /v1/shops/%s/api_keys",
			c.key, strings.Join(c.key.Scopes, ", "), scope, shop)
	}
	return nil
}

// mayCall says whether the caller's key opens a method for what its request names.
func (c caller) mayCall(method string, req any) error {
	if c.key == nil {
		return nil
	}
	scope := scopeOf(method)
	if of, ok := req.(interface{ GetShopId() string }); ok {
		return c.may(of.GetShopId(), scope)
	}
	if scope != anyKey {
		return fault.New(fault.Forbidden, "this is not about one shop: it needs the operator's key")
	}
	return nil
}

// anyKey is the scope of methods that every good key opens.
const anyKey = "any"

// scopes are those of methods, by the methods' full names.
var scopes sync.Map

// scopeOf gives the scope that a method's proto names.
func scopeOf(method string) string {
	if known, ok := scopes.Load(method); ok {
		return known.(string)
	}
	scope := key.Admin
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
		if named, ok := proto.GetExtension(d.Options(), shopbellv1.E_Scope).(string); ok && named != "" {
			scope = named
		}
	}
	scopes.Store(method, scope)
	return scope
}

type callerKey struct{}

func with(ctx context.Context, who caller) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// Caller says by which key a call came: "operator", a shop's key as "key_… (its label)", or nothing where no key is asked
// for. It is for records of who did what; the key itself is nowhere in it.
func Caller(ctx context.Context) string {
	who, _ := ctx.Value(callerKey{}).(caller)
	return who.name
}

// ShopKey is the shop's key by which a call came, or nil.
func ShopKey(ctx context.Context) *key.Key {
	who, _ := ctx.Value(callerKey{}).(caller)
	return who.key
}

// Authorize says whether an HTTP request that came through RequireKey may do what a scope allows in a shop. gRPC methods
// need not ask: their protos say which scope they need, and the server asks before it calls them.
func Authorize(ctx context.Context, shop, scope string) error {
	who, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		return errNobody
	}
	return who.may(shop, scope)
}

// errNobody is a mistake of ours: nobody asked who calls.
var errNobody = errors.New("the request did not come through RequireKey")
