package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// maxSet is the longest X-Session-Set that the gateway takes, in bytes.
const maxSet = 16 * 1024

// Session is the visitor's Django session, as it came with the request and with
// what the handler has changed since. It may be used by several goroutines at
// once.
//
// Values are copied out and in: to change a list of the session, Get it, change
// it, and Set it. A value that equals the one that came is no change.
type Session struct {
	claims *claims

	mu     sync.Mutex
	closed bool
	// edits hold the values of keys that differ from what came; nil deletes.
	edits                  map[string]json.RawMessage
	flushed, cycle         bool
	touched, onlyUnchanged bool
	// expiry is the JSON of "expiry"; "" where it is not set.
	expiry string
	// taken is what Take gave.
	taken string
}

func newSession(c *claims) *Session {
	return &Session{claims: c, edits: map[string]json.RawMessage{}}
}

// UserID is the primary key of the Django user who sent this request, as text;
// "" if nobody is logged in. It is a [WithheldError] where nobody knows.
func (s *Session) UserID() (string, error) {
	if !s.claims.withheld.knowsVisitor() {
		return "", s.withheldError()
	}
	return s.claims.sub, nil
}

// User reads the claim "user", the columns of the user's row that the route asks
// for, into what into points to. It is [ErrNoUser] where there is none, and a
// [WithheldError] where that is not known: with the contents it may be withheld,
// too.
func (s *Session) User(into any) error {
	switch {
	case s.claims.user != nil && s.claims.withheld.knowsVisitor():
		return read("user", s.claims.user, into)
	case s.claims.withheld != WithheldNothing:
		return s.withheldError()
	default:
		return ErrNoUser
	}
}

// SID stands for the session. It is not the cookie, and it differs for each
// service. It is "" where no session is known.
func (s *Session) SID() string { return s.claims.sid }

// Rev is the version of what came; "" where there is none.
func (s *Session) Rev() string { return s.claims.rev }

// ExpiresAt is when the session ends; false where no session is known.
func (s *Session) ExpiresAt() (time.Time, bool) {
	if !s.claims.hasSessionExp {
		return time.Time{}, false
	}
	return time.Unix(s.claims.sessionExp, 0), true
}

// Withheld says why the contents did not come; [WithheldNothing] if they did.
func (s *Session) Withheld() Withheld { return s.claims.withheld }

// Claims reads all claims of the token into what into points to.
func (s *Session) Claims(into any) error { return read("claims", s.claims.all, into) }

func (s *Session) withheldError() error { return &WithheldError{Withheld: s.claims.withheld} }

// base is what the changes are compared with; false where it is not known.
func (s *Session) base() (map[string]json.RawMessage, bool) {
	if s.flushed {
		return nil, true
	}
	return s.claims.session, s.claims.withheld == WithheldNothing
}

// Get reads the value of a key into what into points to, as json.Unmarshal does;
// numbers that go into an interface become json.Number. It is [ErrNoKey] where
// there is no such key, a [WithheldError] where that is not known, and a
// [TypeError] where the value does not fit. A json.RawMessage takes every value,
// byte for byte.
func (s *Session) Get(key string, into any) error {
	raw, err := s.raw(key)
	if err != nil {
		return err
	}
	return read(key, raw, into)
}

// Has says whether there is a value of this key.
func (s *Session) Has(key string) (bool, error) {
	_, err := s.raw(key)
	if errors.Is(err, ErrNoKey) {
		return false, nil
	}
	return err == nil, err
}

func (s *Session) raw(key string) (json.RawMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, edited := s.edits[key]
	if !edited {
		base, known := s.base()
		if !known {
			return nil, s.withheldError()
		}
		raw = base[key]
	}
	if raw == nil {
		return nil, ErrNoKey
	}
	return raw, nil
}

// Keys are the keys of the session, sorted.
func (s *Session) Keys() ([]string, error) {
	all, err := s.All()
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys, nil
}

// All is a copy of the session: the JSON of every value, by key.
func (s *Session) All() (map[string]json.RawMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	base, known := s.base()
	if !known {
		return nil, s.withheldError()
	}
	all := make(map[string]json.RawMessage, len(base)+len(s.edits))
	for key, raw := range base {
		all[key] = clone(raw)
	}
	for key, raw := range s.edits {
		if raw == nil {
			delete(all, key)
		} else {
			all[key] = clone(raw)
		}
	}
	return all, nil
}

// Set sets a key to what encoding/json makes of value. Keys that begin with _
// belong to Django, and are a [KeyError]; what the session cannot hold is a
// [ValueError]: NaN, texts that are not UTF-8 or hold U+0000, and what is nested
// over 30 deep. What equals the value that came is fine in any case.
func (s *Session) Set(key string, value any) error {
	if err := checkKey(key); err != nil {
		return err
	}
	raw, err := encode(key, value)
	if err != nil {
		return err
	}
	cannotStore := storable(key, raw)
	err = s.change(func() {
		base, known := s.base()
		old, there := base[key]
		switch {
		case known && there && equalJSON(old, raw):
			// Django may have stored what the gateway would not take from here.
			delete(s.edits, key)
			cannotStore = nil
		case cannotStore == nil:
			s.edits[key] = appendASCII(nil, raw)
		}
	})
	if err != nil {
		return err
	}
	return cannotStore
}

// Delete removes a key. One that is not there is fine.
func (s *Session) Delete(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return s.change(func() {
		base, known := s.base()
		if _, there := base[key]; known && !there {
			delete(s.edits, key)
		} else {
			s.edits[key] = nil
		}
	})
}

// Flush destroys the session, as a logout does, and what was changed before. What
// is set afterwards goes into a fresh session with a new key. UserID still says
// who sent this request.
func (s *Session) Flush() error {
	return s.change(func() {
		s.flushed, s.cycle, s.expiry = true, false, ""
		s.edits = map[string]json.RawMessage{}
	})
}

// CycleKey gives the session a new key and keeps its data. Do this when the
// visitor gets more rights.
func (s *Session) CycleKey() error {
	// A session that was flushed gets a new key anyway.
	return s.change(func() { s.cycle = !s.flushed })
}

// SetExpiry is Django's set_expiry: the session ends so long after each save; 0
// is when the browser closes. It is a number of whole seconds.
func (s *Session) SetExpiry(after time.Duration) error {
	if after < 0 || after%time.Second != 0 {
		return errors.New("upstream: an expiry is a number of whole seconds, 0 or more")
	}
	return s.change(func() { s.expiry = strconv.FormatInt(int64(after/time.Second), 10) })
}

// SetDefaultExpiry is Django's set_expiry(None): the session ends by the site's
// settings.
func (s *Session) SetDefaultExpiry() error {
	return s.change(func() { s.expiry = "null" })
}

// Touch extends the session, also if nothing else is changed.
func (s *Session) Touch() error {
	return s.change(func() { s.touched = true })
}

// OnlyIfUnchanged makes the change depend on nobody else having changed what came
// with this request; otherwise the client gets a 409 from the gateway. Where there
// is no session it does nothing: what is set goes into a fresh one, which nobody
// else can have changed. It is a [WithheldError] where there is one whose version
// did not come.
func (s *Session) OnlyIfUnchanged() error {
	if s.claims.rev == "" && s.claims.withheld != WithheldNothing {
		return s.withheldError()
	}
	return s.change(func() { s.onlyUnchanged = true })
}

// change makes one, unless it could not be carried out.
func (s *Session) change(edit func()) error {
	if !s.claims.withheld.knowsVisitor() {
		return s.withheldError()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	edit()
	return nil
}

// Take gives the value for X-Session-Set, "" if there is none, and ends the
// session: every later change is [ErrClosed]. It is for handlers that write a
// head by themselves on a hijacked connection, such as that of a WebSocket. In
// every other handler the middleware does it, and also in this one, if it answers
// in the usual way after all.
func (s *Session) Take() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", ErrClosed
	}
	value, err := s.header()
	if err != nil {
		return "", err
	}
	s.closed, s.taken = true, value
	return value, nil
}

// A headError is why a response cannot go out as the handler made it.
type headError struct{ code, text string }

func (e *headError) Error() string { return e.text }

// finish ends the session with a response of this status. It gives the value for
// X-Session-Set; "" if there is none. byHand are those that the handler has set.
func (s *Session) finish(status int, byHand []string) (string, *headError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, err := s.taken, (*headError)(nil)
	wasClosed := s.closed
	s.closed = true
	if status >= http.StatusInternalServerError {
		return "", nil
	}
	if !wasClosed {
		value, err = s.header()
	}
	isTaken := s.taken != "" && len(byHand) == 1 && byHand[0] == s.taken
	if err == nil && value != "" && len(byHand) > 0 && !isTaken {
		err = &headError{"x-session-set-twice", "the handler has changed the session and has set X-Session-Set by itself"}
	}
	return value, err
}

func (s *Session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// isChanged says whether closing it now would lose a change.
func (s *Session) isChanged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.changes()
}

func (s *Session) changes() bool {
	return len(s.edits) > 0 || s.flushed || s.cycle || s.touched || s.expiry != ""
}

// header is the value for X-Session-Set; "" if there is nothing to say.
func (s *Session) header() (string, *headError) {
	if !s.changes() {
		return "", nil
	}
	var keys, deleted []string
	for key, raw := range s.edits {
		if raw != nil {
			keys = append(keys, key)
		} else {
			deleted = append(deleted, key)
		}
	}
	sort.Strings(keys)
	sort.Strings(deleted)

	text := []byte{'{'}
	member := func(name string) {
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(append(append(text, '"'), name...), `":`...)
	}
	if s.onlyUnchanged && s.claims.rev != "" {
		member("if")
		text = appendString(text, s.claims.rev)
	}
	if s.flushed {
		member("flush")
		text = append(text, "true"...)
	}
	if s.cycle {
		member("cycle")
		text = append(text, "true"...)
	}
	if len(deleted) > 0 && !s.flushed {
		member("del")
		for i, key := range deleted {
			text = appendString(append(text, "[,"[min(i, 1)]), key)
		}
		text = append(text, ']')
	}
	if len(keys) > 0 {
		member("set")
		for i, key := range keys {
			text = append(appendString(append(text, "{,"[min(i, 1)]), key), ':')
			text = append(text, s.edits[key]...)
		}
		text = append(text, '}')
	}
	if s.expiry != "" {
		member("expiry")
		text = append(text, s.expiry...)
	}
	text = append(text, '}')
	if len(text) > maxSet {
		return "", &headError{"x-session-set-too-large", fmt.Sprintf(
			"X-Session-Set would be %d bytes long; at most %d are taken", len(text), maxSet)}
	}
	return string(text), nil
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// appendString appends a JSON string in ASCII. Strings of UTF-8 always have one.
func appendString(dst []byte, text string) []byte {
	raw, _ := json.Marshal(text)
	return appendASCII(dst, raw)
}

func checkKey(key string) error {
	switch {
	case strings.HasPrefix(key, "_"):
		return &KeyError{key, "names that begin with _ belong to Django"}
	case !utf8.ValidString(key):
		return &KeyError{key, "it is not UTF-8"}
	case strings.ContainsRune(key, 0):
		return &KeyError{key, "it holds U+0000"}
	}
	return nil
}

// encode gives the JSON of a value.
func encode(key string, value any) (json.RawMessage, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		var badValue *json.UnsupportedValueError
		var badType *json.UnsupportedTypeError
		switch {
		case errors.As(err, &badValue):
			return nil, &ValueError{key, "JSON has neither NaN nor infinity nor endless nesting"}
		case errors.As(err, &badType):
			return nil, &ValueError{key, "JSON has no " + badType.Type.String()}
		default: // It may show the value.
			return nil, &ValueError{key, fmt.Sprintf("encoding/json refuses a %T", value)}
		}
	}
	// It writes what is not UTF-8 in this way, and calls that no error.
	if bytes.Contains(raw, []byte(`\ufffd`)) && !isUTF8(reflect.ValueOf(value)) {
		return nil, &ValueError{key, "it has a text that is not UTF-8"}
	}
	// What came was read by these rules: only what keeps them can equal it.
	if err := scan(raw, maxTokenNesting, false); err != nil {
		return nil, &ValueError{key, err.Error()}
	}
	return raw, nil
}

// storable says why the gateway would not store a value.
func storable(key string, raw json.RawMessage) error {
	// X-Session-Set and its "set" are around it.
	if err := scan(raw, maxNesting-2, true); err != nil {
		return &ValueError{key, err.Error()}
	}
	return nil
}

var (
	marshalerType     = reflect.TypeOf((*json.Marshaler)(nil)).Elem()
	textMarshalerType = reflect.TypeOf((*interface{ MarshalText() ([]byte, error) })(nil)).Elem()
)

// isUTF8 says whether the strings are UTF-8 that encoding/json has found in a
// value. What encodes itself is not looked into.
func isUTF8(v reflect.Value) bool {
	if !v.IsValid() || v.Type().Implements(marshalerType) || v.Type().Implements(textMarshalerType) {
		return true
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return v.IsNil() || isUTF8(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := 0; i < v.Len(); i++ {
			if !isUTF8(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if !isUTF8(entries.Key()) || !isUTF8(entries.Value()) {
				return false
			}
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			field := v.Type().Field(i)
			if (field.IsExported() || field.Anonymous) && field.Tag.Get("json") != "-" && !isUTF8(v.Field(i)) {
				return false
			}
		}
	}
	return true
}

// read decodes a value of the session. The errors of encoding/json may show it.
func read(key string, raw json.RawMessage, into any) error {
	if target, ok := into.(*json.RawMessage); ok && target != nil {
		*target = clone(raw)
		return nil
	}
	if decode(raw, into) != nil {
		return &TypeError{key, strings.TrimPrefix(fmt.Sprintf("%T", into), "*")}
	}
	return nil
}

func clone(raw json.RawMessage) json.RawMessage { return append(json.RawMessage(nil), raw...) }
