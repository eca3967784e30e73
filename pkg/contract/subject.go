package contract

import (
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/fault"
)

// The bounds of names that people choose.
const (
	MaxShopID    = 64
	MaxEventType = 128
	MaxEventID   = 200
)

// CheckShopID says what is wrong with a shop's id. Subjects are made of it, so the alphabet is closed.
func CheckShopID(shop string) error {
	switch {
	case shop == "":
		return fault.Field("shop_id", "it is empty; name the shop")
	case len(shop) > MaxShopID:
		return fault.Field("shop_id", "it has %d bytes; at most %d are taken", len(shop), MaxShopID)
	case shop[0] == '.' || strings.ContainsFunc(shop, notNameLetter):
		return fault.Field("shop_id", "%q has a character that no shop id has; use letters, digits, '.', '_' and '-', and no '.' in front", shop)
	}
	return nil
}

// CheckEventType says what is wrong with an event's type (SHOPS.md S5.1): a wildcard, a blank or an empty part would
// change the subject that it becomes.
func CheckEventType(eventType string) error {
	switch {
	case eventType == "":
		return fault.Field("type", "it is empty; name what happened, such as \"order_created\"")
	case len(eventType) > MaxEventType:
		return fault.Field("type", "it has %d bytes; at most %d are taken", len(eventType), MaxEventType)
	case strings.ContainsAny(eventType, "*>"):
		return fault.Field("type", "%q has a wildcard; an event has one exact type, and for a webhook \"*\" alone is every type", eventType)
	case strings.ContainsFunc(eventType, notNameLetter):
		return fault.Field("type", "%q has a character that no type has; use letters, digits, '.', '_' and '-'", eventType)
	case eventType[0] == '.' || eventType[len(eventType)-1] == '.' || strings.Contains(eventType, ".."):
		return fault.Field("type", "%q has an empty part; put letters or digits on both sides of each '.'", eventType)
	}
	return nil
}

// CheckEventID says what is wrong with an event's id.
func CheckEventID(eventID string) error {
	switch {
	case eventID == "":
		return fault.Field("id", "it is empty; leave the field out to be given one")
	case len(eventID) > MaxEventID:
		return fault.Field("id", "it has %d bytes; at most %d are taken", len(eventID), MaxEventID)
	case strings.ContainsFunc(eventID, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/\?#%`, r) }):
		return fault.Field("id", "%q has a blank, a character beyond ASCII, or one of / \\ ? # %%, with which it could not stand in an address", eventID)
	}
	return nil
}

func notNameLetter(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

// shopToken is a shop's id as one part of a subject or of a bucket's key: dots would make several parts of it. No shop
// id has a '=', which is one of the few signs that a key may have.
func shopToken(shop string) string { return strings.ReplaceAll(shop, ".", "=") }

func shopOf(token string) string { return strings.ReplaceAll(token, "=", ".") }

// BatchSubjects is where all batches lie.
const BatchSubjects = "batches.*"

// BatchSubject is where the parts of a batch lie.
func BatchSubject(batchID string) string { return "batches." + batchID }

// ShopEventSubjects is where all events of a shop lie.
func ShopEventSubjects(shop string) string { return "events.*." + shopToken(shop) + ".>" }

// BulkEventSubjects is where those of a shop's events lie that came in a burst.
func BulkEventSubjects(shop string) string { return "events.bulk." + shopToken(shop) + ".>" }

// EventSubject is where an event lies. Shop and type must be checked. Bursts lie apart, so that nobody's single event
// waits behind another shop's thousands.
func EventSubject(shop, eventType string, bulk bool) string {
	kind := "single"
	if bulk {
		kind = "bulk"
	}
	return "events." + kind + "." + shopToken(shop) + "." + eventType
}

// shards spread the deliveries of many webhooks over as many subjects, so that a cluster can share them out.
const shards = 16

// Way is how a delivery comes to the senders. Each way has a consumer of its own, so that nothing waits behind thousands that
// came another way.
type Way string

// The ways.
const (
	Straight Way = "deliveries" // at once, of a single event
	Bulk     Way = "bulk"       // at once, of a burst or a replay
	Due      Way = "due"        // after it waited for its time
)

// deliverySubjects is where all deliveries lie that come this way.
func deliverySubjects(way Way) string { return string(way) + ".*.*" }

// DeliverySubject is where a delivery to a webhook lies.
func DeliverySubject(webhookID string, way Way) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(webhookID))
	return string(way) + "." + strconv.Itoa(int(h.Sum32()%shards)) + "." + webhookID
}

// LaterSubject is where the timer of a delivery lies. There is one for each delivery: another replaces it.
func LaterSubject(webhookID, deliveryID string) string {
	return "later." + webhookID + "." + deliveryID
}

// timerSubjects is where all timers lie.
const timerSubjects = "later.*.*"

// HeldSubject is where the held deliveries of a webhook lie, in their order.
func HeldSubject(webhookID string) string { return "held." + webhookID }

// HeldSubjects is where all that is held lies.
const HeldSubjects = "held.*"

// WebhookOfHeld is the webhook of what lies on a subject in HELD.
func WebhookOfHeld(subject string) string {
	_, rest, _ := strings.Cut(subject, ".")
	webhookID, _, _ := strings.Cut(rest, ".")
	return webhookID
}

// CancelSubject is where the wish lies that a held delivery be cancelled.
func CancelSubject(webhookID, deliveryID string) string {
	return "cancels." + webhookID + "." + deliveryID
}

// CancelSubjects is where all such wishes lie of a webhook's held deliveries.
func CancelSubjects(webhookID string) string { return "cancels." + webhookID + ".*" }

// AllCancelSubjects is where all of them lie.
const AllCancelSubjects = "cancels.*.*"

// TriesSubject is where it lies what was tried with a held delivery.
func TriesSubject(webhookID, deliveryID string) string {
	return "tries." + webhookID + "." + deliveryID
}

// TriesSubjects is where all tries of a webhook's held deliveries lie.
func TriesSubjects(webhookID string) string { return "tries." + webhookID + ".*" }

// DeliveryOfTries is the delivery that tries on this subject belong to.
func DeliveryOfTries(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// LaneKey is where a lane lies in its bucket while it holds deliveries.
func LaneKey(webhookID string) string { return "lane." + webhookID }

// MemberKey is where a sender says in the same bucket that it is alive.
func MemberKey(sender string) string { return "sender." + sender }

// ParseLaneKey takes a key of that bucket apart: one of both is empty.
func ParseLaneKey(key string) (webhookID, sender string) {
	if s, ok := strings.CutPrefix(key, "sender."); ok {
		return "", s
	}
	return strings.TrimPrefix(key, "lane."), ""
}

// OutcomeSubject is where a record lies. Records that speak of no webhook alone have an empty one.
func OutcomeSubject(shop, webhookID string) string {
	if webhookID == "" {
		webhookID = "_"
	}
	return "outcomes." + shopToken(shop) + "." + webhookID
}

// SharedOutcomes is where records of several shops lie that were written together. No shop has this name.
const SharedOutcomes = "outcomes.$._"

// OutcomeSubjects is where all records lie.
const OutcomeSubjects = "outcomes.*.*"

// ParseOutcomeSubject takes a record's subject apart; shop and webhookID are empty where it speaks of no shop or webhook alone.
func ParseOutcomeSubject(subject string) (shop, webhookID string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "outcomes.")
	token, webhookID, cut := strings.Cut(rest, ".")
	if !ok || !cut || token == "" || webhookID == "" || strings.Contains(webhookID, ".") {
		return "", "", false
	}
	if webhookID == "_" {
		webhookID = ""
	}
	if subject == SharedOutcomes {
		return "", "", true
	}
	return shopOf(token), webhookID, true
}

// ShopOutcomeSubjects is where all records of a shop lie but those that were written together with others', and all wishes that its webhooks be switched off.
func ShopOutcomeSubjects(shop string) string { return "outcomes." + shopToken(shop) + ".>" }

// Place is where messages lie: a stream, and subjects of it.
type Place struct {
	Stream   string
	Subjects []string
}

// WaitingPlaces is where everything lies that is on its way to webhooks or waits to be, of all shops; the timers come last.
func WaitingPlaces() []Place {
	return []Place{{Deliveries, []string{deliverySubjects(Straight), deliverySubjects(Bulk)}}, {Later, []string{deliverySubjects(Due), timerSubjects}}}
}

// Left is what an earlier build may have left where it no longer lies.
type Left struct {
	Place
	Consumer string
}

// Moved is all of that: timers, and what they made due, lay in DELIVERIES.
func Moved() []Left {
	return []Left{{Place{Deliveries, []string{timerSubjects, deliverySubjects(Due)}}, DueSender}}
}

// SwitchSubject is where the wish lies that a webhook be switched off.
func SwitchSubject(shop, webhookID string) string { return OutcomeSubject(shop, webhookID) + ".switch" }

// IsSwitch says whether such a wish lies on this subject of OUTCOMES.
func IsSwitch(subject string) bool { return strings.HasSuffix(subject, ".switch") }

// WebhookKey is where a webhook lies in its bucket.
func WebhookKey(shop, webhookID string) string { return shopToken(shop) + "." + webhookID }

// ShopWebhookKeys is where all webhooks of a shop lie.
func ShopWebhookKeys(shop string) string { return shopToken(shop) + ".*" }

// ParseWebhookKey takes a webhook's key apart.
func ParseWebhookKey(key string) (shop, webhookID string, ok bool) { return parsePlace(key) }

// KeyPlace is where a shop's key lies in its bucket.
func KeyPlace(shop, keyID string) string { return shopToken(shop) + "." + keyID }

// ParseKeyPlace takes the place of a shop's key apart.
func ParseKeyPlace(place string) (shop, keyID string, ok bool) { return parsePlace(place) }

func parsePlace(place string) (shop, id string, ok bool) {
	token, id, ok := strings.Cut(place, ".")
	return shopOf(token), id, ok && token != "" && id != "" && !strings.Contains(id, ".")
}

// ReplayKey is where a job lies in its bucket.
func ReplayKey(shop, jobID string) string { return shopToken(shop) + "." + jobID }

// ShopReplayKeys is where all jobs of a shop lie.
func ShopReplayKeys(shop string) string { return shopToken(shop) + ".*" }

// ShopKey is where a shop's settings lie in their bucket.
func ShopKey(shop string) string { return shopToken(shop) }

// ParseShopKey takes a shop's key apart.
func ParseShopKey(key string) string { return shopOf(key) }

// FillerSubject is where a message may lie that says nothing, so that a stream which is busy is never empty.
func FillerSubject(stream string) string { return "filler." + strings.ToLower(stream) }

// Filler is such a message; it takes the place of the one before it.
func Filler(stream string) *nats.Msg {
	m := nats.NewMsg(FillerSubject(stream))
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	return m
}
