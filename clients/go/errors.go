package upstream

import (
	"errors"
	"fmt"
	"strconv"
)

var (
	// ErrNoKey is what Get says where the session has no such key.
	ErrNoKey = errors.New("upstream: the session has no such key")

	// ErrNoUser is what User says where no claim "user" came: nobody is logged
	// in, or the route does not ask for it.
	ErrNoUser = errors.New("upstream: the token has no user")

	// ErrWithheld is what every [WithheldError] is, for errors.Is.
	ErrWithheld = errors.New("upstream: the session is withheld")

	// ErrClosed is what a change says after the head of the response has gone
	// out, or the handler has returned: it would be lost.
	ErrClosed = errors.New("upstream: the response has begun, and the session cannot be changed any more")

	// ErrReplaced is what Write says after the session's change could not be sent:
	// the client has got a 500 instead of the handler's answer.
	ErrReplaced = errors.New("upstream: the response was replaced by a 500, because the session's change cannot be sent")

	// ErrHijackChanged is what Hijack says while there are changes that the
	// hijacked connection would lose. [Session.Take] has them.
	ErrHijackChanged = errors.New("upstream: the session was changed, and a hijacked connection would lose that: call Take first")
)

// WithheldError says that the gateway has not told what was asked for. It is
// never the same as "nothing there".
type WithheldError struct {
	// Withheld is the claim: why.
	Withheld Withheld
}

func (e *WithheldError) Error() string {
	return "upstream: the session is withheld (" + string(e.Withheld) + ")"
}

// Is says that it is an [ErrWithheld].
func (e *WithheldError) Is(target error) bool { return target == ErrWithheld }

// KeyError is a key that cannot be set or deleted.
type KeyError struct {
	// Key is the key.
	Key string
	// Rule is the rule that it breaks.
	Rule string
}

func (e *KeyError) Error() string {
	return "upstream: the key " + strconv.Quote(e.Key) + " cannot be changed: " + e.Rule
}

// ValueError is a value that the session cannot hold. It never shows the value.
type ValueError struct {
	// Key is the key that it was to be set to.
	Key string
	// Rule is the rule that it breaks.
	Rule string
}

func (e *ValueError) Error() string {
	return "upstream: the value of " + strconv.Quote(e.Key) + " cannot be set: " + e.Rule
}

// TypeError is a value of the session that is of another type than the one
// asked for. It never shows the value.
type TypeError struct {
	// Key is the key, or the claim.
	Key string
	// Type is the Go type that was asked for.
	Type string
}

func (e *TypeError) Error() string {
	return "upstream: the value of " + strconv.Quote(e.Key) + " is no " + e.Type
}

// A Reason is why a request was refused.
type Reason string

// The reasons.
const (
	// ReasonMissing: no X-Session.
	ReasonMissing Reason = "missing"
	// ReasonTwice: more than one X-Session field.
	ReasonTwice Reason = "twice"
	// ReasonMalformed: no token, or claims that are missing or of another type.
	ReasonMalformed Reason = "malformed"
	// ReasonAlgorithm: another typ, or an alg that is not the one of the key.
	ReasonAlgorithm Reason = "algorithm"
	// ReasonUnknownKid: signed with a key that is not there: neither among Keys and
	// PublicKeys, nor from KeyFunc and PublicKeyFunc, which may also have failed.
	ReasonUnknownKid Reason = "unknown-kid"
	// ReasonSignature: the signature does not fit.
	ReasonSignature Reason = "signature"
	// ReasonAudience: for another service.
	ReasonAudience Reason = "audience"
	// ReasonIssuer: from another gateway.
	ReasonIssuer Reason = "issuer"
	// ReasonExpired: after exp.
	ReasonExpired Reason = "expired"
	// ReasonNotYetValid: before iat.
	ReasonNotYetValid Reason = "not-yet-valid"
	// ReasonOtherRequest: signed for another method, Host or target.
	ReasonOtherRequest Reason = "other-request"
)

// RefusedError is why a request was refused. It holds nothing of the token but
// short names, quoted.
type RefusedError struct {
	// Reason is the reason.
	Reason Reason

	detail string
}

func (e *RefusedError) Error() string {
	return "X-Session refused (" + string(e.Reason) + "): " + e.detail
}

func refused(reason Reason, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: reason, detail: fmt.Sprintf(format, args...)}
}
