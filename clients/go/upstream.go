package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

// The two header fields of the contract.
const (
	// Header is the request header field that holds the signed session.
	Header = "X-Session"
	// SetHeader is the response header field that holds what is to be changed.
	SetHeader = "X-Session-Set"
)

// Check says for which requests the claim "req" is compared with the request.
// It keeps a copied token from being used for another request.
type Check int

const (
	// CheckUnsafe compares it for every method but GET, HEAD, OPTIONS and TRACE, and
	// for every request with an Upgrade field, such as the handshake of a WebSocket.
	CheckUnsafe Check = iota
	// CheckAlways compares it for every request.
	CheckAlways
	// CheckNever compares it for none.
	CheckNever
)

// Config is what New needs to know. Keys or PublicKeys (or their functions),
// Audience and Issuer are required.
type Config struct {
	// Keys are the secrets that are shared with the gateway, by kid: 1 to 64 of
	// A-Z a-z 0-9 . _ -. As in the gateway's configuration a secret that begins with
	// "base64:" is decoded, and one final newline is cut. A secret has at least 32
	// bytes.
	Keys map[string]string
	// KeyFunc gives a secret by its kid, for keys that change while the service
	// runs; "" where there is none. It is asked for what is not in Keys. The kid is
	// one that nobody has verified yet, but always 1 to 64 of A-Z a-z 0-9 . _ -. Of
	// its error the log has the type only.
	KeyFunc func(ctx context.Context, kid string) (secret string, err error)

	// PublicKeys are the gateway's public keys where it signs with EdDSA: the x of
	// each JWK, by kid.
	PublicKeys map[string]string
	// PublicKeyFunc gives the x of a public key by its kid, as KeyFunc does.
	PublicKeyFunc func(ctx context.Context, kid string) (x string, err error)

	// Audience is this service's name in the gateway's configuration.
	Audience string
	// Issuer is the gateway's issuer.
	Issuer string

	// Leeway is how far clocks may differ: 30 s if it is 0, none if it is negative.
	Leeway time.Duration

	// CheckRequest says when the claim "req" is compared: CheckUnsafe by default.
	CheckRequest Check

	// Exempt are the paths, spelt exactly so, of requests that do not come through
	// the gateway, such as health checks. They pass without a session.
	Exempt []string
	// ExemptFunc says so of other requests.
	ExemptFunc func(*http.Request) bool

	// OnRefused answers a request that is refused, instead of the 401 with a
	// little JSON. The refusal is in the log already.
	OnRefused func(http.ResponseWriter, *http.Request, *RefusedError)

	// ErrorLog gets a line for every request that is refused, and for every change
	// that could not be sent; nil is the standard logger.
	ErrorLog *log.Logger

	// Now is the clock; nil is time.Now. It is meant for tests.
	Now func() time.Time
}

// Middleware checks X-Session and sends X-Session-Set. It may be used by many
// requests at once.
type Middleware struct {
	config Config
	keys   keyring
	leeway time.Duration
	exempt map[string]bool
}

// New makes the middleware, or says what is wrong with the configuration.
func New(config Config) (*Middleware, error) {
	if config.Audience == "" {
		return nil, errors.New("upstream: Audience is missing: this service's name in the gateway's configuration")
	}
	if config.Issuer == "" {
		return nil, errors.New("upstream: Issuer is missing: the gateway's issuer")
	}
	if config.CheckRequest < CheckUnsafe || config.CheckRequest > CheckNever {
		return nil, errors.New("upstream: CheckRequest is none of CheckUnsafe, CheckAlways and CheckNever")
	}
	keys, err := newKeyring(&config)
	if err != nil {
		return nil, err
	}
	leeway := config.Leeway
	switch {
	case leeway == 0:
		leeway = 30 * time.Second
	case leeway < 0:
		leeway = 0
	case leeway > time.Hour:
		return nil, errors.New("upstream: a Leeway of more than an hour would make expired tokens good")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	exempt := make(map[string]bool, len(config.Exempt))
	for _, path := range config.Exempt {
		if !strings.HasPrefix(path, "/") {
			return nil, errors.New("upstream: an Exempt path begins with /")
		}
		exempt[path] = true
	}
	// What was read is kept here only.
	config.Keys, config.PublicKeys = nil, nil
	return &Middleware{config: config, keys: keys, leeway: leeway, exempt: exempt}, nil
}

type contextKey struct{}

// FromContext gives the session of a request, by its context. It is false for
// requests that are exempt, or that did not pass the middleware.
func FromContext(ctx context.Context) (*Session, bool) {
	session, ok := ctx.Value(contextKey{}).(*Session)
	return session, ok
}

// Handler gives next the requests that have a good X-Session, with the session in
// their context, and refuses the others.
//
// It must see the request as it came: put it outside of what changes Host or
// RequestURI.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.isExempt(r) {
			next.ServeHTTP(w, r)
			return
		}
		claims, err := m.check(r)
		if err != nil {
			m.refuse(w, r, err)
			return
		}
		session := newSession(claims)
		response := &response{ResponseWriter: w, session: session, logf: m.logf, before: w.Header().Clone()}
		// What runs on after the handler, or after its panic, changes nothing any more.
		defer session.close()
		next.ServeHTTP(response.withFeatures(), r.WithContext(context.WithValue(r.Context(), contextKey{}, session)))
		response.begin(http.StatusOK)
	})
}

func (m *Middleware) isExempt(r *http.Request) bool {
	// RawPath is there where the path was not spelt as usual, and others may
	// understand it otherwise.
	if m.exempt[r.URL.Path] && r.URL.RawPath == "" {
		return true
	}
	return m.config.ExemptFunc != nil && m.config.ExemptFunc(r)
}

func (m *Middleware) check(r *http.Request) (*claims, *RefusedError) {
	fields := r.Header.Values(Header)
	switch len(fields) {
	case 0:
		return nil, refused(ReasonMissing, "the request has no X-Session, so it did not come through the gateway")
	case 1:
	default:
		return nil, refused(ReasonTwice, "the request has more than one X-Session")
	}
	claims, err := m.verify(r.Context(), fields[0])
	if err != nil {
		return nil, err
	}
	if m.comparesRequest(r) {
		if r.RequestURI == "" || r.Host == "" {
			return nil, refused(ReasonOtherRequest,
				"the request does not tell its raw target or Host; put the middleware outside of what removes them, or set CheckRequest: CheckNever")
		}
		digest := sha256.Sum256([]byte(r.Method + " " + r.Host + " " + r.RequestURI))
		wanted := base64.RawURLEncoding.EncodeToString(digest[:])
		if subtle.ConstantTimeCompare([]byte(wanted), []byte(claims.request)) != 1 {
			return nil, refused(ReasonOtherRequest,
				"it was signed for another method, Host or target; either it was copied, or something between the gateway and here changes them")
		}
	}
	return claims, nil
}

func (m *Middleware) comparesRequest(r *http.Request) bool {
	switch m.config.CheckRequest {
	case CheckNever:
		return false
	case CheckAlways:
		return true
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return len(r.Header.Values("Upgrade")) > 0
	default:
		return true
	}
}

func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, err *RefusedError) {
	m.logf("WARNING: %v (from %s)", err, r.RemoteAddr)
	if m.config.OnRefused != nil {
		m.config.OnRefused(w, r, err)
		return
	}
	answer(w, http.StatusUnauthorized, "x-session-"+string(err.Reason))
}

func (m *Middleware) logf(format string, args ...any) {
	if m.config.ErrorLog != nil {
		m.config.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// answer writes a problem that tells a stranger its code and nothing else.
func answer(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"code":"`+code+`"}`+"\n")
}
