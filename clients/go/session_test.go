package upstream

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/quick"
	"time"
)

func sessionOf(t testing.TB, more string) *Session {
	t.Helper()
	c, err := readClaims([]byte(`{"iss":"i","aud":"a","iat":1,"exp":2,"jti":"j","req":"r",` + more + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return newSession(c)
}

func known(t testing.TB, data string) *Session {
	return sessionOf(t, `"sid":"s","rev":"R-1","sub":"42","session_exp":1765206000,"session":`+data)
}

// must is for changes that a test is not about.
func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sent(t testing.TB, s *Session) string {
	t.Helper()
	value, err := s.finish(200, nil)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestOnlyWhatDiffersIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		data   string
		change func(*Session) error
		sent   string
	}{
		"nothing":              {`{"a":1}`, func(*Session) error { return nil }, ``},
		"an equal value":       {`{"a":{"x":[1,2],"y":null}}`, func(s *Session) error { return s.Set("a", json.RawMessage(`{"y":null, "x":[1.0,2]}`)) }, ``},
		"a float of an int":    {`{"a":2}`, func(s *Session) error { return s.Set("a", 2.0) }, ``},
		"a big integer":        {`{"a":12345678901234567890123}`, func(s *Session) error { return s.Set("a", json.Number("12345678901234567890124")) }, `{"set":{"a":12345678901234567890124}}`},
		"the same big integer": {`{"a":12345678901234567890123}`, func(s *Session) error { return s.Set("a", json.Number("12345678901234567890123")) }, ``},
		"true is not 1":        {`{"a":1}`, func(s *Session) error { return s.Set("a", true) }, `{"set":{"a":true}}`},
		"null is a value":      {`{"a":1}`, func(s *Session) error { return s.Set("a", nil) }, `{"set":{"a":null}}`},
		"null for nothing":     {`{}`, func(s *Session) error { return s.Set("a", nil) }, `{"set":{"a":null}}`},
		"delete":               {`{"a":1}`, func(s *Session) error { return s.Delete("a") }, `{"del":["a"]}`},
		"delete nothing":       {`{}`, func(s *Session) error { return s.Delete("a") }, ``},
		"delete what was null": {`{"a":null}`, func(s *Session) error { return s.Delete("a") }, `{"del":["a"]}`},
		"there and back": {`{"a":1}`, func(s *Session) error {
			return first(s.Set("a", 2), s.Set("b", 1), s.Delete("b"), s.Delete("a"), s.Set("a", 1))
		}, ``},
		"several, sorted": {`{"c":1,"d":1}`, func(s *Session) error {
			return first(s.Set("b", 1), s.Set("a", 1), s.Delete("d"), s.Delete("c"))
		}, `{"del":["c","d"],"set":{"a":1,"b":1}}`},
		"ASCII":              {`{}`, func(s *Session) error { return s.Set("\"é", "é😀\x7f\u2028\ufffd<") }, `{"set":{"\"\u00e9":"\u00e9\ud83d\ude00\u007f\u2028\ufffd\u003c"}}`},
		"touch":              {`{}`, func(s *Session) error { return s.Touch() }, `{}`},
		"touch and more":     {`{}`, func(s *Session) error { return first(s.Touch(), s.Set("a", 1)) }, `{"set":{"a":1}}`},
		"cycle":              {`{}`, func(s *Session) error { return s.CycleKey() }, `{"cycle":true}`},
		"expiry":             {`{}`, func(s *Session) error { return s.SetExpiry(5 * time.Minute) }, `{"expiry":300}`},
		"expiry 0":           {`{}`, func(s *Session) error { return s.SetExpiry(0) }, `{"expiry":0}`},
		"expiry by default":  {`{}`, func(s *Session) error { return s.SetDefaultExpiry() }, `{"expiry":null}`},
		"only if unchanged":  {`{"a":1}`, func(s *Session) error { return first(s.OnlyIfUnchanged(), s.Set("a", 2)) }, `{"if":"R-1","set":{"a":2}}`},
		"only if, nothing":   {`{"a":1}`, func(s *Session) error { return s.OnlyIfUnchanged() }, ``},
		"flush":              {`{"a":1}`, func(s *Session) error { return first(s.Set("b", 1), s.CycleKey(), s.Flush(), s.Delete("a")) }, `{"flush":true}`},
		"flush, then cycle":  {`{"a":1}`, func(s *Session) error { return first(s.Flush(), s.CycleKey()) }, `{"flush":true}`},
		"flush, then set":    {`{"a":1}`, func(s *Session) error { return first(s.Flush(), s.Set("a", 1)) }, `{"flush":true,"set":{"a":1}}`},
		"flush, then expiry": {`{"a":1}`, func(s *Session) error { return first(s.SetExpiry(0), s.Flush()) }, `{"flush":true}`},
	} {
		s := known(t, c.data)
		must(t, c.change(s))
		if value := sent(t, s); value != c.sent {
			t.Errorf("%s: %s", name, value)
		}
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestWhatIsSetIsReadAgain(t *testing.T) {
	s := known(t, `{"n":12345678901234567890123,"a":[1],"gone":1}`)
	var n any
	must(t, s.Get("n", &n))
	if n != json.Number("12345678901234567890123") {
		t.Errorf("%v", n)
	}
	var list []int
	must(t, s.Get("a", &list), s.Set("a", append(list, 2)), s.Get("a", &list), s.Delete("gone"))
	if !reflect.DeepEqual(list, []int{1, 2}) {
		t.Errorf("%v", list)
	}
	if err := s.Get("gone", &n); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
	keys, err := s.Keys()
	if err != nil || !reflect.DeepEqual(keys, []string{"a", "n"}) {
		t.Errorf("%v %v", keys, err)
	}
	if there, err := s.Has("gone"); there || err != nil {
		t.Errorf("%v %v", there, err)
	}
	must(t, s.Flush(), s.Set("b", 1))
	if keys, _ := s.Keys(); !reflect.DeepEqual(keys, []string{"b"}) {
		t.Errorf("%v", keys)
	}
}

func TestACopyDoesNotChangeTheSession(t *testing.T) {
	s := known(t, `{"a":[1]}`)
	var raw json.RawMessage
	must(t, s.Get("a", &raw))
	all, err := s.All()
	must(t, err)
	raw[1], all["a"][1] = '7', '8'
	if must(t, s.Get("a", &raw)); string(raw) != "[1]" {
		t.Errorf("%s", raw)
	}
	list := []int{1, 2}
	must(t, s.Set("a", list))
	list[0] = 9
	if value := sent(t, s); value != `{"set":{"a":[1,2]}}` {
		t.Error(value)
	}
}

func TestUnknownIsNeverEmpty(t *testing.T) {
	var into any
	for _, why := range []Withheld{WithheldTooLarge, WithheldNotJSON} {
		s := sessionOf(t, `"sid":"s","sub":"42","withheld":"`+string(why)+`"`)
		_, keys := s.Keys()
		_, has := s.Has("a")
		for _, err := range []error{s.Get("a", &into), keys, has, s.User(&into), s.OnlyIfUnchanged()} {
			var withheld *WithheldError
			if !errors.Is(err, ErrWithheld) || !errors.As(err, &withheld) || withheld.Withheld != why {
				t.Errorf("%s: %v", why, err)
			}
		}
		if id, err := s.UserID(); id != "42" || err != nil {
			t.Errorf("%s: %q %v", why, id, err)
		}
		must(t, s.Set("a", 1), s.Delete("b"), s.Get("a", &into))
		if err := s.Get("b", &into); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: %v", why, err)
		}
		if value := sent(t, s); value != `{"del":["b"],"set":{"a":1}}` {
			t.Errorf("%s: %s", why, value)
		}
	}
	for _, why := range []Withheld{WithheldOff, WithheldUnreadable, WithheldUnavailable, "a new one"} {
		s := sessionOf(t, `"withheld":"`+string(why)+`"`)
		_, id := s.UserID()
		_, keys := s.Keys()
		for _, err := range []error{
			id, keys, s.User(&into), s.Get("a", &into), s.Set("a", 1), s.Delete("a"), s.Flush(), s.CycleKey(),
			s.SetExpiry(0), s.SetDefaultExpiry(), s.Touch(), s.OnlyIfUnchanged(),
		} {
			if !errors.Is(err, ErrWithheld) {
				t.Errorf("%s: %v", why, err)
			}
		}
		if value := sent(t, s); value != "" {
			t.Errorf("%s: %s", why, value)
		}
	}
}

func TestClaimsAreTold(t *testing.T) {
	s := sessionOf(t, `"sid":"s","rev":"R","sub":"42","session_exp":1765206000,"user":{"username":"jos\u00e9"},"session":{}`)
	var user struct{ Username string }
	var all struct{ Jti string }
	must(t, s.User(&user), s.Claims(&all))
	end, there := s.ExpiresAt()
	if user.Username != "josé" || all.Jti != "j" || s.SID() != "s" || s.Rev() != "R" || end.Unix() != 1765206000 || !there {
		t.Errorf("%+v %+v %v", user, all, end)
	}
	nobody := sessionOf(t, `"session":{}`)
	if id, err := nobody.UserID(); id != "" || err != nil {
		t.Errorf("%q %v", id, err)
	}
	if err := nobody.User(&user); !errors.Is(err, ErrNoUser) {
		t.Errorf("%v", err)
	}
	if _, there := nobody.ExpiresAt(); there {
		t.Error("an end without a session")
	}
}

func TestAUserThatCameIsToldAlsoWhereTheContentsAreWithheld(t *testing.T) {
	s := sessionOf(t, `"sid":"s","sub":"42","user":{"username":"ann"},"withheld":"not_json"`)
	var user struct{ Username string }
	if must(t, s.User(&user)); user.Username != "ann" {
		t.Errorf("%+v", user)
	}
}

func TestAVisitorWithoutASessionGetsOneFromAGuardedChange(t *testing.T) {
	s := sessionOf(t, `"session":{}`)
	var visits int
	if err := s.Get("visits", &visits); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	must(t, s.OnlyIfUnchanged(), s.Set("visits", visits+1))
	if value := sent(t, s); value != `{"set":{"visits":1}}` {
		t.Error(value)
	}
}

func TestWithTooLargeAChangeCanBeGuarded(t *testing.T) {
	s := sessionOf(t, `"sid":"s","rev":"R-1","withheld":"too_large"`)
	must(t, s.OnlyIfUnchanged(), s.Set("a", 1))
	if value := sent(t, s); value != `{"if":"R-1","set":{"a":1}}` {
		t.Error(value)
	}
}

// Tokens carry what the gateway would not store: Django may have stored it.
func TestWhatCameIsWrittenBackInAnyCase(t *testing.T) {
	deep := strings.Repeat("[", 60) + strings.Repeat("]", 60)
	for _, value := range []string{deep, `"a\u0000b"`, `{"\u0000":[1]}`, `[` + strings.Repeat("1", 5000) + `]`} {
		s := known(t, `{"a":`+value+`}`)
		var same any
		must(t, s.Get("a", &same), s.Set("a", same), s.Set("a", json.RawMessage(" "+value)))
		if value := sent(t, s); value != "" {
			t.Error(value)
		}
		s = known(t, `{"a":`+value+`}`)
		must(t, s.Set("a", 1), s.Set("a", same))
		if value := sent(t, s); value != "" {
			t.Error(value)
		}
		// It cannot be stored, so it is no value for another key.
		var bad *ValueError
		if err := known(t, `{"a":`+value+`}`).Set("b", same); !errors.As(err, &bad) {
			t.Error(err)
		}
	}
	var bad *ValueError
	for came, value := range map[string]any{`"\ufffd"`: "\xff", `{"a":2}`: json.RawMessage(`{"a":1,"a":2}`)} {
		if err := known(t, `{"a":`+came+`}`).Set("a", value); !errors.As(err, &bad) {
			t.Errorf("%s is not the same: %v", came, err)
		}
	}
}

func TestWhatTheSessionCannotHoldIsRefusedAtOnce(t *testing.T) {
	deep := func(n int) json.RawMessage { return json.RawMessage(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	must(t, known(t, `{}`).Set("a", deep(30)), known(t, `{}`).Set("a", json.RawMessage(`"\ufffd"`)))
	var endless []any
	endless = append(endless, nil)
	endless[0] = endless
	type wrapped struct{ Text string }
	for name, value := range map[string]any{
		"NaN": math.NaN(), "infinity": math.Inf(1), "a channel": make(chan int), "endless": endless, "too deep": deep(31),
		"half a pair":      json.RawMessage(`"\ud800"`),
		"the other half":   json.RawMessage(`"\udc00"`),
		"pair of halves":   json.RawMessage(`"\ud800\ud800\udc00"`),
		"no UTF-8":         "secret\xff",
		"no UTF-8 inside":  map[string]any{"a": []any{wrapped{"\xff"}}},
		"no UTF-8 in name": map[string]int{"\xff": 1},
		"NUL":              "secret\x00",
		"twice":            json.RawMessage(`{"a":1,"\u0061":2}`),
		"no JSON":          json.RawMessage(`{secret`),
		"beyond a double":  json.Number("1e309"),
		"too many digits":  json.Number("1" + strings.Repeat("0", 4300) + "e-4290"),
	} {
		s := known(t, `{"a":1}`)
		var bad *ValueError
		if err := s.Set("a", value); !errors.As(err, &bad) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if value := sent(t, s); value != "" {
			t.Errorf("%s: %s", name, value)
		}
	}
	for _, key := range []string{"_auth_user_id", "_", "\xff", "a\x00"} {
		s := known(t, `{}`)
		var bad *KeyError
		if err := s.Set(key, 1); !errors.As(err, &bad) {
			t.Errorf("%q: %v", key, err)
		}
		if err := s.Delete(key); !errors.As(err, &bad) {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, after := range []time.Duration{-1, -time.Second, time.Millisecond} {
		if known(t, `{}`).SetExpiry(after) == nil {
			t.Errorf("%v was taken", after)
		}
	}
}

func TestAnErrorShowsNoValue(t *testing.T) {
	s := known(t, `{"pin":4711}`)
	var text string
	var bad *TypeError
	if err := s.Get("pin", &text); !errors.As(err, &bad) || err.Error() != `upstream: the value of "pin" is no string` {
		t.Errorf("%v", err)
	}
}

func TestAChangeAfterTheEndIsAnError(t *testing.T) {
	for _, status := range []int{200, 303, 404, 500} {
		s := known(t, `{"a":1}`)
		if _, err := s.finish(status, nil); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			s.Set("a", 1), s.Delete("z"), s.Flush(), s.CycleKey(), s.SetExpiry(0), s.SetDefaultExpiry(), s.Touch(), s.OnlyIfUnchanged(),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%d: %v", status, err)
			}
		}
		var a int
		if err := s.Get("a", &a); err != nil || a != 1 {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestTheHeaderIsAtMost16KiB(t *testing.T) {
	overhead := len(`{"set":{"a":""}}`)
	s := known(t, `{}`)
	must(t, s.Set("a", strings.Repeat("x", maxSet-overhead)))
	if value := sent(t, s); len(value) != maxSet {
		t.Error(len(value))
	}
	s = known(t, `{}`)
	must(t, s.Set("a", strings.Repeat("x", maxSet-overhead+1)))
	if _, err := s.finish(200, nil); err == nil || !strings.Contains(err.Error(), "16385") {
		t.Errorf("%v", err)
	}
}

func TestManyGoroutinesMayUseASession(t *testing.T) {
	s := known(t, `{"a":1}`)
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func(key string) {
			defer all.Done()
			var n int
			for j := 0; j < 100; j++ {
				if s.Set(key, j) != nil || s.Get(key, &n) != nil || n != j {
					t.Errorf("%s: %d", key, n)
				}
				_, _ = s.All()
			}
		}(strconv.Itoa(i))
	}
	all.Wait()
	var value struct{ Set map[string]int }
	must(t, json.Unmarshal([]byte(sent(t, s)), &value))
	if len(value.Set) != 8 || value.Set["7"] != 99 {
		t.Errorf("%v", value)
	}
}

// anything makes JSON values.
type anything struct{ value any }

func (anything) Generate(r *rand.Rand, size int) reflect.Value {
	return reflect.ValueOf(anything{generate(r, 3)})
}

func generate(r *rand.Rand, depth int) any {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch r.Intn(kinds) {
	case 0:
		return nil
	case 1:
		return r.Intn(2) == 0
	case 2:
		return r.Int63n(5)
	case 3:
		return math.Trunc(r.NormFloat64()*16) / 4
	case 4:
		return json.Number(strconv.FormatUint(r.Uint64(), 10) + strconv.FormatUint(r.Uint64(), 10))
	case 5:
		return []string{"", "a", "é", "😀", "\"\\\n", "\u2028\x7f"}[r.Intn(6)]
	case 6:
		list := make([]any, r.Intn(3))
		for i := range list {
			list[i] = generate(r, depth-1)
		}
		return list
	default:
		object := map[string]any{}
		for i := r.Intn(3); i > 0; i-- {
			object[[]string{"a", "b", "é"}[r.Intn(3)]] = generate(r, depth-1)
		}
		return object
	}
}

// What is sent, applied to what came, is what the handler saw at the end; and
// keys that it left as they were are not sent.
func TestChangesApplyToWhatCame(t *testing.T) {
	keys := []string{"a", "b", "c", "d"}
	holds := func(before [4]anything, steps []struct {
		Key   uint8
		Del   bool
		Value anything
		Back  bool
	}) bool {
		base := map[string]any{}
		for i, value := range before {
			if value.value != nil {
				base[keys[i]] = value.value
			}
		}
		text, _ := json.Marshal(base)
		var came map[string]json.RawMessage
		must(t, json.Unmarshal(text, &came))
		s := known(t, string(text))
		for _, step := range steps {
			key := keys[step.Key%4]
			switch {
			case step.Del:
				must(t, s.Delete(key))
			case step.Back && came[key] != nil:
				must(t, s.Set(key, came[key]))
			default:
				must(t, s.Set(key, step.Value.value))
			}
		}
		seen, err := s.All()
		must(t, err)
		value := sent(t, s)

		var patch struct {
			Set map[string]json.RawMessage
			Del []string
		}
		for _, b := range []byte(value) {
			if b < ' ' || b > '~' {
				t.Errorf("%q is not ASCII", value)
				return false
			}
		}
		if value != "" {
			must(t, json.Unmarshal([]byte(value), &patch))
			if len(patch.Set)+len(patch.Del) == 0 {
				return false
			}
		}
		after := map[string]json.RawMessage{}
		for key, raw := range came {
			after[key] = raw
		}
		for key, raw := range patch.Set {
			if came[key] != nil && equalJSON(came[key], raw) {
				return false
			}
			after[key] = raw
		}
		for _, key := range patch.Del {
			if after[key] == nil {
				return false
			}
			delete(after, key)
		}
		if len(after) != len(seen) {
			return false
		}
		for key, raw := range seen {
			if !equalJSON(raw, after[key]) {
				return false
			}
		}
		return true
	}
	if err := quick.Check(holds, &quick.Config{MaxCount: 3000}); err != nil {
		t.Error(err)
	}
}

func TestNumbersAreComparedByAllTheirDigits(t *testing.T) {
	for _, same := range [][2]string{
		{"1", "1.0"}, {"100", "1e2"}, {"1e+16", "10000000000000000"}, {"0.5", "5e-1"}, {"0", "0.0"}, {"-0.0", "-0"},
		{"1E400", "10e399"}, {"0.001", "1e-3"}, {"1e999999999999999999999", "10e999999999999999999998"}, {"0e5", "0"},
		{`[1,{"a":"\u00e9"}]`, `[1.0, {"a":"é"}]`},
	} {
		if !equalJSON([]byte(same[0]), []byte(same[1])) {
			t.Errorf("%v differ", same)
		}
	}
	for _, other := range [][2]string{
		{"1", "2"}, {"1", "-1"}, {"0", "-0"}, {"1", "1.00000000000000000000001"}, {"9007199254740992", "9007199254740993"},
		{"1", `"1"`}, {"1", "true"}, {"null", "false"}, {"[]", "{}"}, {"[1]", "[1,1]"}, {`{"a":null}`, `{"b":null}`}, {"10", "1"},
	} {
		if equalJSON([]byte(other[0]), []byte(other[1])) {
			t.Errorf("%v are the same", other)
		}
	}
}
