package contract

import (
	"fmt"
	"time"
)

// What is put off because nobody answers at its receiver's host is put off in the same way by whoever sends and by whoever matches.
const (
	// LeastPutOff is how long a delivery is put off at least, unless something is known before. One that has waited for longer is put off for as
	// long as it has waited and no more: a sender that is started anew knows nothing of it, and should not find it much later.
	LeastPutOff = time.Minute
	// MaxPutOff is how many deliveries of a webhook may wait for a later attempt before others are put off no more: they are attempted,
	// so that the lane holds if they fail.
	MaxPutOff = 8
)

// Delayed is the status of a delivery that waits for its time before its first attempt.
const Delayed = "delayed"

// WaitsForHost is the sentence for the story of what is put off.
func WaitsForHost(host string, since, until time.Time) string {
	return fmt.Sprintf("nobody behind %s has answered since %s; it is sent when somebody does, and looked at again at %s", host,
		since.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
}

// What is said and not stored: which hosts are shut, by each sender, and what was put off for that, by whoever matches.
const (
	ShutHostsSubject = "told.shut"
	PutOffsSubject   = "told.put_off"

	// ShutToldEvery is how often a sender says which hosts are shut at least.
	ShutToldEvery = time.Second
	// ShutHolds is for how long its word holds.
	ShutHolds = 3 * ShutToldEvery
)
