// Command service serves the routes by which every package for upstreams is
// tested behind the gateway. It prints the address that it listens on, and ends
// when its standard input ends.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"session-gateway/upstream"
)

func main() {
	mw, err := middleware()
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		log.Fatal(http.Serve(listener, mw.Handler(routes())))
	}()
	fmt.Printf("listening on %s\n", listener.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func middleware() (*upstream.Middleware, error) {
	config := upstream.Config{
		Audience: os.Getenv("XSESSION_AUDIENCE"),
		Issuer:   os.Getenv("XSESSION_ISSUER"),
		Exempt:   []string{"/healthz"},
	}
	for name, into := range map[string]*map[string]string{
		"XSESSION_KEYS":        &config.Keys,
		"XSESSION_PUBLIC_KEYS": &config.PublicKeys,
	} {
		if text := os.Getenv(name); text != "" {
			if json.Unmarshal([]byte(text), into) != nil {
				return nil, fmt.Errorf("%s is not an object of texts", name)
			}
		}
	}
	return upstream.New(config)
}

// A change is what a route does with the session, before it answers with it.
type change func(s *upstream.Session, key string, r *http.Request) error

func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/session", show)
	for path, change := range map[string]change{
		"/set/":     set,
		"/append/":  appendTo,
		"/del/":     func(s *upstream.Session, key string, _ *http.Request) error { return s.Delete(key) },
		"/flush":    func(s *upstream.Session, _ string, _ *http.Request) error { return s.Flush() },
		"/cycle":    func(s *upstream.Session, _ string, _ *http.Request) error { return s.CycleKey() },
		"/touch":    func(s *upstream.Session, _ string, _ *http.Request) error { return s.Touch() },
		"/expiry":   expiry,
		"/nothing":  nothing,
		"/guarded/": guarded,
		"/large/": func(s *upstream.Session, key string, _ *http.Request) error {
			return s.Set(key, strings.Repeat("x", 20_000))
		},
	} {
		mux.HandleFunc(path, posted(path, change, afterwards))
	}
	for path, answer := range map[string]http.HandlerFunc{
		"/redirect/": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/session", http.StatusSeeOther) },
		"/stream/":   stream,
		"/fail/":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "failed", http.StatusInternalServerError) },
		"/mixed/": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(upstream.SetHeader, "{}")
			afterwards(w, r)
		},
	} {
		mux.HandleFunc(path, posted(path, set, answer))
	}
	mux.HandleFunc("/late/", late)
	return mux
}

// posted makes a change and then answers.
func posted(path string, change change, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		session, _ := upstream.FromContext(r.Context())
		if err := change(session, strings.TrimPrefix(r.URL.Path, path), r); err != nil {
			log.Print(err)
			http.Error(w, "the session cannot be changed", http.StatusInternalServerError)
			return
		}
		answer(w, r)
	}
}

func show(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	var user any = "unknown"
	if id, err := session.UserID(); err == nil {
		user = orNull(id)
	}
	respond(w, map[string]any{
		"framework": "net/http",
		"user_id":   user,
		"sid":       orNull(session.SID()),
		"rev":       orNull(session.Rev()),
		"withheld":  orNull(string(session.Withheld())),
		"session":   contents(session),
	})
}

func afterwards(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	respond(w, map[string]any{"session": contents(session)})
}

func contents(session *upstream.Session) any {
	all, err := session.All()
	if err != nil {
		return nil
	}
	return all
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func respond(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func body(r *http.Request) (json.RawMessage, error) {
	text, err := io.ReadAll(r.Body)
	if err == nil && len(text) == 0 {
		text = []byte("null")
	}
	return text, err
}

func set(s *upstream.Session, key string, r *http.Request) error {
	value, err := body(r)
	if err != nil {
		return err
	}
	return s.Set(key, value)
}

func appendTo(s *upstream.Session, key string, r *http.Request) error {
	value, err := body(r)
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if err := s.Get(key, &list); err != nil && !errors.Is(err, upstream.ErrNoKey) {
		return err
	}
	return s.Set(key, append(list, value))
}

func expiry(s *upstream.Session, _ string, r *http.Request) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	var seconds *int64
	if err := json.Unmarshal(text, &seconds); err != nil {
		return err
	}
	if seconds == nil {
		return s.SetDefaultExpiry()
	}
	return s.SetExpiry(time.Duration(*seconds) * time.Second)
}

// nothing writes back what it reads, spelt anew.
func nothing(s *upstream.Session, _ string, _ *http.Request) error {
	keys, err := s.Keys()
	if err != nil || len(keys) == 0 {
		return err
	}
	var value any
	if err := s.Get(keys[0], &value); err != nil {
		return err
	}
	return s.Set(keys[0], value)
}

func guarded(s *upstream.Session, key string, r *http.Request) error {
	if err := s.OnlyIfUnchanged(); err != nil {
		return err
	}
	count := 0
	if err := s.Get(key, &count); err != nil && !errors.Is(err, upstream.ErrNoKey) {
		return err
	}
	if err := changeFirst(r); err != nil {
		return err
	}
	return s.Set(key, count+1)
}

// changeFirst lets somebody else change the session between reading and writing.
func changeFirst(r *http.Request) error {
	url := r.Header.Get("X-Test-Change-First")
	if url == "" {
		return nil
	}
	other, err := http.NewRequest(http.MethodPost, url, strings.NewReader(`"other"`))
	if err != nil {
		return err
	}
	other.Header.Set("Cookie", r.Header.Get("X-Test-Cookie"))
	other.Header.Set("Origin", r.Header.Get("X-Test-Origin"))
	answer, err := http.DefaultClient.Do(other)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func stream(w http.ResponseWriter, _ *http.Request) {
	for _, chunk := range []string{"one", "two", "three"} {
		_, _ = io.WriteString(w, chunk)
		w.(http.Flusher).Flush()
	}
}

func late(w http.ResponseWriter, r *http.Request) {
	// net/http may close the request's body when the answer begins.
	value, err := body(r)
	if err != nil {
		http.Error(w, "no body", http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, "start;")
	w.(http.Flusher).Flush()
	session, _ := upstream.FromContext(r.Context())
	switch err := session.Set(strings.TrimPrefix(r.URL.Path, "/late/"), value); {
	case err == nil:
		_, _ = io.WriteString(w, "stored")
	case errors.Is(err, upstream.ErrClosed):
		_, _ = io.WriteString(w, "refused")
	default:
		_, _ = io.WriteString(w, "failed")
	}
}
