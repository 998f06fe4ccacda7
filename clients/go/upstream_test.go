package upstream

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

type vectors struct {
	Now       int64
	Aud, Kid  string
	SecretB64 string `json:"secret_b64"`
	Good, Bad map[string]string
	Req       struct{ Method, Host, Target string }
	EdDSA     struct {
		Token string
		JWKS  struct{ Keys []struct{ Kid, X string } }
	}
}

const issuer = "gw.shop.example"

func readVectors(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("../../tests/vectors/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vectors) config() Config {
	return Config{
		Keys:       map[string]string{v.Kid: "base64:" + v.SecretB64},
		PublicKeys: map[string]string{v.EdDSA.JWKS.Keys[0].Kid: v.EdDSA.JWKS.Keys[0].X},
		Audience:   v.Aud,
		Issuer:     issuer,
		Now:        func() time.Time { return time.Unix(v.Now, 0) },
	}
}

// sign makes a token of the vectors' key.
func (v *vectors) sign(header, payload string) string {
	secret, _ := base64.StdEncoding.DecodeString(v.SecretB64)
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

func (v *vectors) header() string {
	return `{"alg":"HS256","kid":"` + v.Kid + `","typ":"x-session.v1+jwt"}`
}

// token signs usual claims for GET / and these others.
func (v *vectors) token(more string) string {
	return v.sign(v.header(), `{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"AA","req":"`+
		requestHash("GET", "example.com", "/")+`",`+more+`}`)
}

func requestHash(method, host, target string) string {
	digest := sha256.Sum256([]byte(method + " " + host + " " + target))
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

func middlewareOf(t testing.TB, config Config) *Middleware {
	t.Helper()
	mw, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return mw
}

func reasonOf(err *RefusedError) Reason {
	if err == nil {
		return ""
	}
	return err.Reason
}

// ask sends one request through the middleware, and gives the answer and the log.
func ask(t testing.TB, config Config, r *http.Request, handler http.HandlerFunc) (*http.Response, string) {
	t.Helper()
	var lines bytes.Buffer
	config.ErrorLog = log.New(&lines, "", 0)
	recorder := httptest.NewRecorder()
	middlewareOf(t, config).Handler(handler).ServeHTTP(recorder, r)
	return recorder.Result(), lines.String()
}

func request(method, token string) *http.Request {
	r := httptest.NewRequest(method, "http://example.com/", nil)
	r.RequestURI = "/"
	r.Header.Set(Header, token)
	return r
}

func TestGoodVectorsAreTaken(t *testing.T) {
	v := readVectors(t)
	mw := middlewareOf(t, v.config())
	for name, token := range v.Good {
		c, err := mw.verify(context.Background(), token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wanted := requestHash(v.Req.Method, v.Req.Host, v.Req.Target)
		if c.request != wanted {
			t.Errorf("%s: req is not that of the vectors' request", name)
		}
	}
	if _, err := mw.verify(context.Background(), v.EdDSA.Token); err != nil {
		t.Errorf("EdDSA: %v", err)
	}
}

func TestBadVectorsAreRefusedForTheirReason(t *testing.T) {
	v := readVectors(t)
	mw := middlewareOf(t, v.config())
	reasons := map[string]Reason{
		"payload changed":      ReasonSignature,
		"alg none":             ReasonAlgorithm,
		"signature empty":      ReasonSignature,
		"other typ, right key": ReasonAlgorithm,
		"unknown kid":          ReasonUnknownKid,
		"wrong key":            ReasonSignature,
		"other audience":       ReasonAudience,
		"expired":              ReasonExpired,
		"from the future":      ReasonNotYetValid,
		"two headers joined":   ReasonMalformed,
		"empty":                ReasonMalformed,
	}
	for name, token := range v.Bad {
		_, err := mw.verify(context.Background(), token)
		if err == nil || reasonOf(err) != reasons[name] {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryOtherByteOfATokenIsRefused(t *testing.T) {
	v := readVectors(t)
	mw := middlewareOf(t, v.config())
	token := v.Good["user"]
	for i := range token {
		// Go's base64 passes over line breaks.
		for _, more := range []string{"\n", "\r"} {
			if _, err := mw.verify(context.Background(), token[:i]+more+token[i:]); err == nil {
				t.Fatalf("%q before byte %d was taken", more, i)
			}
		}
		for _, other := range []string{"", "A", "_", "=", "\n", "."} {
			changed := token[:i] + other + token[i+1:]
			if _, err := mw.verify(context.Background(), changed); err == nil && changed != token {
				t.Fatalf("byte %d as %q was taken", i, other)
			}
		}
	}
	if _, err := mw.verify(context.Background(), token+"="); err == nil {
		t.Error("padding was taken")
	}
	// 43 letters of six bits hold 256 bits and two more.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	if _, err := mw.verify(context.Background(), token[:len(token)-1]+alphabet[last+1:last+2]); reasonOf(err) != ReasonMalformed {
		t.Errorf("trailing bits: %v", err)
	}
}

func TestMalformedTokensAreRefused(t *testing.T) {
	v := readVectors(t)
	mw := middlewareOf(t, v.config())
	claims := func(with string) string {
		return `{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"AA","req":"r",` + with + `}`
	}
	if _, err := mw.verify(context.Background(), v.sign(v.header(), claims(`"session":{}`))); err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{
		`[]`, `null`, `1`, ``, `{}`, claims(`"session":{}`) + "x", "\xff",
		claims(`"session":{},"session":{}`),
		claims(`"session":{},"sub":"1","s\u0075b":"2"`),
		claims(`"session":{"a":1,"a":2}`),
		claims(`"session":{"a":{"b":1,"b":2}}`),
		claims(`"session":{"a":"\ud800"}`), claims("\"session\":{\"a\":\"\xff\"}"), claims("\"session\":{\"\xff\":1}"),
		claims(`"session":[]`), claims(`"session":null`), claims(`"session":"{}"`),
		claims(`"session":{},"withheld":"off"`), claims(`"sid":"s"`), claims(`"withheld":""`), claims(`"withheld":null`),
		claims(`"session":{},"sub":null`), claims(`"session":{},"sub":1`), claims(`"session":{},"sub":""`),
		claims(`"session":{},"rev":1`), claims(`"session":{},"user":[]`), claims(`"session":{},"session_exp":"1"`),
		strings.Replace(claims(`"session":{}`), `"aud":"orders"`, `"aud":["orders"]`, 1),
		strings.Replace(claims(`"session":{}`), `"aud"`, `"Aud"`, 1),
		strings.Replace(claims(`"session":{}`), `1764000000`, `1764000000.0`, 1),
		strings.Replace(claims(`"session":{}`), `1764000060`, `"1764000060"`, 1),
		strings.Replace(claims(`"session":{}`), `1764000060`, `null`, 1),
		strings.Replace(claims(`"session":{}`), `1764000060`, `1e300`, 1),
		strings.Replace(claims(`"session":{}`), `1764000060`, `9223372036854775807`, 1),
		claims(`"session":{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`),
		claims(`"session":{"a":"` + strings.Repeat("x", 70_000) + `"}`),
	} {
		if _, err := mw.verify(context.Background(), v.sign(v.header(), payload)); reasonOf(err) != ReasonMalformed {
			t.Errorf("%.150s: %v", payload, err)
		}
	}
	good := claims(`"session":{}`)
	for header, reason := range map[string]Reason{
		`{"alg":"HS256","kid":"orders-2025-11"}`:                                            ReasonMalformed,
		`{"alg":"HS256","alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}`:     ReasonMalformed,
		`{"alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt","crit":["b64"]}`:    ReasonMalformed,
		`{"alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt","b64":false}`:       ReasonMalformed,
		`{"ALG":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}`:                   ReasonMalformed,
		`{"alg":"HS256","kid":1,"typ":"x-session.v1+jwt"}`:                                  ReasonMalformed,
		`{"alg":"hs256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}`:                   ReasonAlgorithm,
		`{"alg":"EdDSA","kid":"orders-2025-11","typ":"x-session.v1+jwt"}`:                   ReasonAlgorithm,
		`{"alg":"HS256","kid":"` + v.EdDSA.JWKS.Keys[0].Kid + `","typ":"x-session.v1+jwt"}`: ReasonAlgorithm,
		`{"alg":"HS256","kid":"orders-2025-11","typ":"JWT"}`:                                ReasonAlgorithm,
	} {
		if _, err := mw.verify(context.Background(), v.sign(header, good)); reasonOf(err) != reason {
			t.Errorf("%s: %v", header, err)
		}
	}
	other := strings.Replace(good, "gw.shop.example", "gw.other.example", 1)
	if _, err := mw.verify(context.Background(), v.sign(v.header(), other)); reasonOf(err) != ReasonIssuer {
		t.Errorf("a foreign issuer: %v", err)
	}
}

func TestTheLeewayIsExact(t *testing.T) {
	v := readVectors(t)
	for _, c := range []struct {
		leeway time.Duration
		now    int64
		reason Reason
	}{
		{0, 1764000090, ""}, {0, 1764000091, ReasonExpired}, {0, 1763999970, ""}, {0, 1763999969, ReasonNotYetValid},
		{-1, 1764000060, ""}, {-1, 1764000061, ReasonExpired}, {-1, 1763999999, ReasonNotYetValid},
		{time.Minute, 1764000120, ""}, {time.Minute, 1764000121, ReasonExpired},
	} {
		config := v.config()
		config.Leeway, config.Now = c.leeway, func() time.Time { return time.Unix(c.now, 0) }
		if _, err := middlewareOf(t, config).verify(context.Background(), v.Good["user"]); reasonOf(err) != c.reason {
			t.Errorf("%v at %d: %v", c.leeway, c.now, err)
		}
	}
}

func TestARefusedRequestGets401AndALineThatSaysWhy(t *testing.T) {
	v := readVectors(t)
	never := func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") }
	without := request("GET", "")
	without.Header.Del(Header)
	twice := request("GET", v.Good["user"])
	twice.Header.Add(Header, v.Good["user"])
	other := request("POST", v.Good["user"])
	blind := request("POST", v.Good["user"])
	blind.RequestURI = ""
	for reason, r := range map[string]*http.Request{
		"missing": without, "twice": twice, "expired": request("GET", v.Bad["expired"]),
		"signature": request("GET", v.Bad["wrong key"]), "other-request": other,
	} {
		answer, lines := ask(t, v.config(), r, never)
		var problem struct{ Code string }
		_ = json.NewDecoder(answer.Body).Decode(&problem)
		if answer.StatusCode != 401 || problem.Code != "x-session-"+reason {
			t.Errorf("%s: %d %s", reason, answer.StatusCode, problem.Code)
		}
		if !strings.HasPrefix(lines, "WARNING: ") || !strings.Contains(lines, "("+reason+")") || strings.Count(lines, "\n") != 1 {
			t.Errorf("%s: %s", reason, lines)
		}
		for _, part := range strings.Split(r.Header.Get(Header), ".") {
			if part != "" && strings.Contains(lines, part) {
				t.Errorf("%s: the token is in the log", reason)
			}
		}
	}
	if _, lines := ask(t, v.config(), blind, never); !strings.Contains(lines, "CheckNever") {
		t.Errorf("an unknown target: %s", lines)
	}
}

func TestWhatAStrangerWritesCannotForgeALine(t *testing.T) {
	v := readVectors(t)
	const forged = `a\nERROR: b\u2028`
	for _, header := range []string{
		`{"alg":"HS256","kid":"` + forged + `","typ":"x-session.v1+jwt"}`,
		`{"alg":"HS256","kid":"k","typ":"` + forged + `"}`,
		`{"alg":"` + forged + `","kid":"k","typ":"x-session.v1+jwt"}`,
	} {
		_, lines := ask(t, v.config(), request("GET", v.sign(header, `{}`)), nil)
		if strings.Count(lines, "\n") != 1 || strings.Contains(lines, "\u2028") {
			t.Errorf("%q", lines)
		}
	}
}

func TestReqIsComparedAsConfigured(t *testing.T) {
	v := readVectors(t)
	token := v.sign(v.header(), `{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"AA","req":"`+
		requestHash("POST", "example.com", "/a%2fb?c=%64")+`","session":{}}`)
	for _, c := range []struct {
		check              Check
		method, host, path string
		status             int
	}{
		{CheckUnsafe, "POST", "example.com", "/a%2fb?c=%64", 200},
		{CheckUnsafe, "POST", "example.com", "/a/b?c=%64", 401},
		{CheckUnsafe, "POST", "example.com", "/a%2fb?c=d", 401},
		{CheckUnsafe, "POST", "EXAMPLE.com", "/a%2fb?c=%64", 401},
		{CheckUnsafe, "PUT", "example.com", "/a%2fb?c=%64", 401},
		{CheckUnsafe, "get", "example.com", "/", 401},
		{CheckUnsafe, "GET", "example.com", "/", 200},
		{CheckUnsafe, "HEAD", "example.com", "/", 200},
		{CheckUnsafe, "OPTIONS", "example.com", "/", 200},
		{CheckUnsafe, "TRACE", "example.com", "/", 200},
		{CheckUnsafe, "CONNECT", "example.com", "/", 401},
		{CheckAlways, "GET", "example.com", "/", 401},
		{CheckAlways, "POST", "example.com", "/a%2fb?c=%64", 200},
		{CheckNever, "POST", "example.com", "/", 200},
	} {
		config := v.config()
		config.CheckRequest = c.check
		r := request(c.method, token)
		r.Host, r.RequestURI = c.host, c.path
		answer, lines := ask(t, config, r, func(http.ResponseWriter, *http.Request) {})
		if answer.StatusCode != c.status {
			t.Errorf("%+v: %d %s", c, answer.StatusCode, lines)
		}
	}
}

func TestReqOfAHandshakeIsComparedThoughItIsAGet(t *testing.T) {
	v := readVectors(t)
	for _, c := range []struct {
		target  string
		upgrade string
		check   Check
		status  int
	}{
		{"/", "websocket", CheckUnsafe, 200},
		{"/other", "websocket", CheckUnsafe, 401},
		{"/other", "spdy/3.1", CheckUnsafe, 401},
		{"/other", "", CheckUnsafe, 401},
		{"/other", "websocket", CheckNever, 200},
	} {
		config := v.config()
		config.CheckRequest = c.check
		r := request("GET", v.token(`"session":{}`))
		r.RequestURI = c.target
		r.Header.Set("Upgrade", c.upgrade)
		if answer, lines := ask(t, config, r, func(http.ResponseWriter, *http.Request) {}); answer.StatusCode != c.status {
			t.Errorf("%+v: %d %s", c, answer.StatusCode, lines)
		}
	}
}

func TestATextWithNULIsRead(t *testing.T) {
	v := readVectors(t)
	ask(t, v.config(), request("GET", v.token(`"session":{"a":"b\u0000","c\u0000":1}`)), func(_ http.ResponseWriter, r *http.Request) {
		s, _ := FromContext(r.Context())
		var text string
		if must(t, s.Get("a", &text)); text != "b\x00" {
			t.Errorf("%q", text)
		}
		if there, err := s.Has("c\x00"); !there || err != nil {
			t.Error(there, err)
		}
	})
}

func TestExemptRequestsPassWithoutASession(t *testing.T) {
	v := readVectors(t)
	config := v.config()
	config.Exempt = []string{"/healthz"}
	config.ExemptFunc = func(r *http.Request) bool { return r.URL.Path == "/metrics" }
	for target, status := range map[string]int{
		"/healthz": 204, "/healthz?a": 204, "/metrics": 204, "/healthz/": 401, "/%68ealthz": 401, "/": 401, "/HEALTHZ": 401,
	} {
		r := httptest.NewRequest("GET", target, nil)
		answer, _ := ask(t, config, r, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := FromContext(r.Context()); ok {
				t.Error("an exempt request has a session")
			}
			w.WriteHeader(204)
		})
		if answer.StatusCode != status {
			t.Errorf("%s: %d", target, answer.StatusCode)
		}
	}
}

func TestOnRefusedAnswersInstead(t *testing.T) {
	v := readVectors(t)
	config := v.config()
	config.OnRefused = func(w http.ResponseWriter, _ *http.Request, err *RefusedError) {
		w.Header().Set("X-Why", string(err.Reason))
		w.WriteHeader(418)
	}
	answer, lines := ask(t, config, request("GET", v.Bad["expired"]), nil)
	if answer.StatusCode != 418 || answer.Header.Get("X-Why") != "expired" || lines == "" {
		t.Errorf("%d %q %q", answer.StatusCode, answer.Header.Get("X-Why"), lines)
	}
}

func TestMistakesAreOneClearSentenceAtTheStart(t *testing.T) {
	v := readVectors(t)
	for _, c := range []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.Audience = "" }, "Audience"},
		{func(c *Config) { c.Issuer = "" }, "Issuer"},
		{func(c *Config) { c.Keys, c.PublicKeys = nil, nil }, "Keys"},
		{func(c *Config) { c.Keys["short"] = "0123456789012345678901234567890" }, "31 bytes"},
		{func(c *Config) { c.Keys["short"] = "0123456789012345678901234567890\n" }, "31 bytes"},
		{func(c *Config) { c.Keys["b"] = "base64:not base64 at all, which is quite long" }, "base64"},
		{func(c *Config) { c.PublicKeys["x"] = "AAAA" }, "32 bytes"},
		{func(c *Config) { c.PublicKeys[v.Kid] = v.EdDSA.JWKS.Keys[0].X }, "both"},
		{func(c *Config) { c.Keys["a key"] = c.Keys[v.Kid] }, "a key"},
		{func(c *Config) { c.PublicKeys["é\n"] = v.EdDSA.JWKS.Keys[0].X }, `"\u00e9\n"`},
		{func(c *Config) { c.CheckRequest = 7 }, "CheckRequest"},
		{func(c *Config) { c.Leeway = 2 * time.Hour }, "Leeway"},
		{func(c *Config) { c.Exempt = []string{"healthz"} }, "Exempt"},
	} {
		config := v.config()
		c.change(&config)
		_, err := New(config)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%s: %v", c.says, err)
		}
	}
}

func TestSecretsAreReadAsTheGatewayReadsThem(t *testing.T) {
	raw := "0123456789abcdef0123456789abcde\xff"
	for _, text := range []string{
		raw, raw + "\n", raw + "\r\n",
		"base64:" + base64.StdEncoding.EncodeToString([]byte(raw)),
		"base64:" + base64.RawStdEncoding.EncodeToString([]byte(raw)) + "\n",
		"base64:" + base64.URLEncoding.EncodeToString([]byte(raw)),
		"base64:" + base64.RawURLEncoding.EncodeToString([]byte(raw)),
	} {
		if secret, err := secretOf(text); err != nil || string(secret) != raw {
			t.Errorf("%q: %v", text, err)
		}
	}
	if secret, err := secretOf(raw + "\n\n"); err != nil || string(secret) != raw+"\n" {
		t.Error("more than one newline was cut")
	}
}

func TestFunctionsAreAskedForKeysByKid(t *testing.T) {
	v := readVectors(t)
	config := v.config()
	config.Keys, config.PublicKeys = nil, nil
	secrets, failure := map[string]string{}, error(nil)
	config.KeyFunc = func(_ context.Context, kid string) (string, error) { return secrets[kid], failure }
	config.PublicKeyFunc = func(_ context.Context, kid string) (string, error) {
		if kid == v.EdDSA.JWKS.Keys[0].Kid {
			return v.EdDSA.JWKS.Keys[0].X, nil
		}
		return "", nil
	}
	mw := middlewareOf(t, config)
	verify := func(token string) Reason {
		_, err := mw.verify(context.Background(), token)
		return reasonOf(err)
	}
	if reason := verify(v.Good["user"]); reason != ReasonUnknownKid {
		t.Error(reason)
	}
	if reason := verify(v.EdDSA.Token); reason != "" {
		t.Error(reason)
	}
	secrets[v.Kid] = "base64:" + v.SecretB64
	if reason := verify(v.Good["user"]); reason != "" {
		t.Error(reason)
	}
	secrets[v.Kid] = "short"
	if reason := verify(v.Good["user"]); reason != ReasonUnknownKid {
		t.Error(reason)
	}
	failure = errors.New("no answer")
	if reason := verify(v.Good["user"]); reason != ReasonUnknownKid {
		t.Error(reason)
	}
}

func TestAKidIsLookedAtBeforeAFunctionIsAsked(t *testing.T) {
	v := readVectors(t)
	config := v.config()
	config.Keys, config.PublicKeys = nil, nil
	var asked []string
	config.KeyFunc = func(_ context.Context, kid string) (string, error) {
		asked = append(asked, kid)
		return "", errors.New("\nERROR: all is well with " + kid + ", whose key is " + v.SecretB64)
	}
	for _, kid := range []string{
		"", "../../etc/passwd", "a b", "a\\nERROR: b", "é", "a\\u0000", "\\u2028", strings.Repeat("a", 65), "a,b", "%0a",
	} {
		token := v.sign(`{"alg":"HS256","kid":"`+kid+`","typ":"x-session.v1+jwt"}`, `{}`)
		answer, lines := ask(t, config, request("GET", token), nil)
		body, _ := io.ReadAll(answer.Body)
		if string(body) != `{"code":"x-session-unknown-kid"}`+"\n" {
			t.Errorf("%q: %s", kid, body)
		}
		if strings.Count(lines, "\n") != 1 || kid != "" && strings.Contains(lines, kid) {
			t.Errorf("%q: %s", kid, lines)
		}
	}
	if len(asked) != 0 {
		t.Errorf("the function was asked for %q", asked)
	}
	kid := "AZaz09._-" + strings.Repeat("k", 55)
	_, lines := ask(t, config, request("GET", v.sign(`{"alg":"HS256","kid":"`+kid+`","typ":"x-session.v1+jwt"}`, `{}`)), nil)
	if len(asked) != 1 || asked[0] != kid {
		t.Errorf("the function was asked for %q", asked)
	}
	// What a function of the application says goes into no log: it may hold anything.
	if strings.Count(lines, "\n") != 1 || strings.Contains(lines, "all is well") || strings.Contains(lines, v.SecretB64) ||
		!strings.Contains(lines, "errors.errorString") {
		t.Errorf("%q", lines)
	}
}

func FuzzVerify(f *testing.F) {
	v := readVectors(f)
	for _, token := range v.Good {
		f.Add(token, `"session":{"a":[1,"\u00e9",{"b":null}]}`)
	}
	for _, token := range v.Bad {
		f.Add(token, `"withheld":"off"`)
	}
	mw := middlewareOf(f, v.config())
	good := map[string]bool{v.EdDSA.Token: true}
	for _, token := range v.Good {
		good[token] = true
	}
	f.Fuzz(func(t *testing.T, token, more string) {
		if _, err := mw.verify(context.Background(), token); err == nil && !good[token] {
			t.Errorf("%q was taken", token)
		}
		// What is signed may hold anything: it is read whole or refused whole.
		c, err := mw.verify(context.Background(), v.token(more))
		if err != nil {
			return
		}
		var any map[string]any
		if json.Unmarshal(c.all, &any) != nil {
			t.Errorf("%q was taken, and is no object", more)
		}
		for key, raw := range c.session {
			if !equalJSON(raw, appendASCII(nil, raw)) {
				t.Errorf("the value of %q changes in ASCII", key)
			}
		}
	})
}
