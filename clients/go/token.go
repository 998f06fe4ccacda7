package upstream

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"time"
)

const (
	// maxToken is the longest token, in bytes.
	maxToken = 64 * 1024
	// maxTokenNesting is more than the gateway ever sends: values nested 60 deep, in
	// "session", in the claims.
	maxTokenNesting = 64
	// maxTime keeps sums of times far from overflowing.
	maxTime = 1 << 53

	typ = "x-session.v1+jwt"
)

// Withheld says why the contents of a session did not come.
type Withheld string

// Why the contents did not come. With the first two the gateway knows the
// session, and it can be changed; with the others nobody knows who is calling.
const (
	// WithheldNothing: everything came.
	WithheldNothing Withheld = ""
	// WithheldTooLarge: the token would have been too large.
	WithheldTooLarge Withheld = "too_large"
	// WithheldNotJSON: a value that is JSON for Python only.
	WithheldNotJSON Withheld = "not_json"
	// WithheldOff: the route does not read sessions.
	WithheldOff Withheld = "off"
	// WithheldUnreadable: a session that the gateway cannot verify.
	WithheldUnreadable Withheld = "unreadable"
	// WithheldUnavailable: the session database did not answer.
	WithheldUnavailable Withheld = "unavailable"
)

// knowsVisitor says whether sub, sid and user mean something.
func (w Withheld) knowsVisitor() bool {
	return w == WithheldNothing || w == WithheldTooLarge || w == WithheldNotJSON
}

// claims are those of a token that was checked.
type claims struct {
	all json.RawMessage

	issuer, audience, request string
	issued, expires           int64

	sid, rev, sub string
	sessionExp    int64
	hasSessionExp bool
	user          json.RawMessage
	// session is nil where it is withheld.
	session  map[string]json.RawMessage
	withheld Withheld
}

// verify gives the claims of a token that is signed by one of the keys and good
// for audience and issuer at this time.
func (m *Middleware) verify(ctx context.Context, token string) (*claims, *RefusedError) {
	if len(token) > maxToken {
		return nil, refused(ReasonMalformed, "it is longer than 64 KiB")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, refused(ReasonMalformed, "it is not a compact JWS")
	}
	rawHeader, ok1 := base64url(parts[0])
	payload, ok2 := base64url(parts[1])
	signature, ok3 := base64url(parts[2])
	if !ok1 || !ok2 || !ok3 {
		return nil, refused(ReasonMalformed, "it is not base64url")
	}

	alg, kid, err := readHeader(rawHeader)
	if err != nil {
		return nil, err
	}
	found, err := m.keys.find(ctx, kid)
	if err != nil {
		return nil, err
	}
	if alg != found.algorithm() {
		return nil, refused(ReasonAlgorithm, "the key %s is for %s only", shown(kid), found.algorithm())
	}
	if !found.fits(token[:len(parts[0])+1+len(parts[1])], signature) {
		return nil, refused(ReasonSignature, "the signature is not one of the key %s", shown(kid))
	}
	c, err := readClaims(payload)
	if err != nil {
		return nil, err
	}
	return c, m.accepts(c)
}

func (k key) fits(signed string, signature []byte) bool {
	if k.public != nil {
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k.public, []byte(signed), signature)
	}
	mac := hmac.New(sha256.New, k.secret)
	mac.Write([]byte(signed))
	return hmac.Equal(mac.Sum(nil), signature)
}

// accepts says whether claims are for this service and good now.
func (m *Middleware) accepts(c *claims) *RefusedError {
	if c.audience != m.config.Audience {
		return refused(ReasonAudience, "it is for %s, not for %s", shown(c.audience), shown(m.config.Audience))
	}
	if c.issuer != m.config.Issuer {
		return refused(ReasonIssuer, "it is from %s, not from %s", shown(c.issuer), shown(m.config.Issuer))
	}
	now := m.config.Now()
	if early := time.Unix(c.issued, 0).Add(-m.leeway).Sub(now); early > 0 {
		return refused(ReasonNotYetValid, "it is good %v from now, beyond the leeway: compare the clocks", early.Round(time.Second))
	}
	// Unix seconds, so that the last second counts as a whole.
	if now.Unix() > c.expires+int64(m.leeway/time.Second) {
		late := time.Duration(now.Unix()-c.expires) * time.Second
		return refused(ReasonExpired, "it ended %v ago", late)
	}
	return nil
}

func readHeader(raw []byte) (alg, kid string, _ *RefusedError) {
	var members map[string]json.RawMessage
	if scan(raw, 1, false) != nil || json.Unmarshal(raw, &members) != nil || members == nil {
		return "", "", refused(ReasonMalformed, "its header is not a JSON object")
	}
	var typed string
	for name, into := range map[string]*string{"alg": &alg, "kid": &kid, "typ": &typed} {
		if !readString(members[name], into) {
			return "", "", refused(ReasonMalformed, "its header has no %s", name)
		}
	}
	// Such as "crit": what would have to be understood (RFC 7515, 4.1.11).
	if len(members) != 3 {
		return "", "", refused(ReasonMalformed, "its header has members that are not known")
	}
	if typed != typ {
		return "", "", refused(ReasonAlgorithm, "its typ is %s, not %s", shown(typed), typ)
	}
	if alg != "HS256" && alg != "EdDSA" {
		return "", "", refused(ReasonAlgorithm, "its alg is %s", shown(alg))
	}
	return alg, kid, nil
}

func readClaims(payload []byte) (*claims, *RefusedError) {
	var members map[string]json.RawMessage
	if err := scan(payload, maxTokenNesting, false); err != nil {
		return nil, refused(ReasonMalformed, "its payload cannot be read: %v", err)
	}
	if json.Unmarshal(payload, &members) != nil || members == nil {
		return nil, refused(ReasonMalformed, "its payload is not a JSON object")
	}

	c := &claims{all: payload}
	var jti, withheld string
	required := map[string]*string{"iss": &c.issuer, "aud": &c.audience, "jti": &jti, "req": &c.request}
	for name, into := range required {
		if !readString(members[name], into) {
			return nil, refused(ReasonMalformed, "the claim %s is missing or no text", name)
		}
	}
	optional := map[string]*string{"sid": &c.sid, "rev": &c.rev, "sub": &c.sub, "withheld": &withheld}
	for name, into := range optional {
		if raw, there := members[name]; there && (!readString(raw, into) || *into == "") {
			return nil, refused(ReasonMalformed, "the claim %s is no text", name)
		}
	}
	for name, into := range map[string]*int64{"iat": &c.issued, "exp": &c.expires} {
		if !readTime(members[name], into) {
			return nil, refused(ReasonMalformed, "the claim %s is missing or no time", name)
		}
	}
	var raw json.RawMessage
	if raw, c.hasSessionExp = members["session_exp"]; c.hasSessionExp && !readTime(raw, &c.sessionExp) {
		return nil, refused(ReasonMalformed, "the claim session_exp is no time")
	}
	raw, there := members["user"]
	if there && raw[0] != '{' {
		return nil, refused(ReasonMalformed, "the claim user is no object")
	}
	c.user = raw

	raw, there = members["session"]
	c.withheld = Withheld(withheld)
	if there == (withheld != "") {
		return nil, refused(ReasonMalformed, "it has both or neither of the claims session and withheld")
	}
	if there && (raw[0] != '{' || json.Unmarshal(raw, &c.session) != nil) {
		return nil, refused(ReasonMalformed, "the claim session is no object")
	}
	return c, nil
}

func readString(raw json.RawMessage, into *string) bool {
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, into) == nil
}

func readTime(raw json.RawMessage, into *int64) bool {
	// "null" would leave it as it is, without an error.
	return len(raw) > 0 && raw[0] >= '0' && raw[0] <= '9' &&
		json.Unmarshal(raw, into) == nil && *into <= maxTime
}
