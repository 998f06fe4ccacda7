package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"session-gateway/upstream"
)

// The secret and the clock of the examples' tokens.
const exampleSecret = "base64:3Bs8gUMG0e5Hx6moOQDVjvKR9T6sEtMUU4wczvBAOcc="

// exampleToken is that of user 42 with {"cart":[{"sku":"A-1","qty":2}],...}, for GET.
func exampleToken() string {
	text, err := os.ReadFile("../../tests/vectors/contract.json")
	if err != nil {
		log.Fatal(err)
	}
	_, token, _ := strings.Cut(string(text), `"user": "`)
	token, _, _ = strings.Cut(token, `"`)
	return token
}

func call(handler http.HandlerFunc) {
	mw, err := upstream.New(upstream.Config{
		Keys:     map[string]string{"orders-2025-11": exampleSecret},
		Audience: "orders",
		Issuer:   "gw.shop.example",
		Now:      func() time.Time { return time.Unix(1764000005, 0) },
	})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Session", exampleToken())
	w := httptest.NewRecorder()
	mw.Handler(handler).ServeHTTP(w, r)
	fmt.Println(strings.TrimSpace(fmt.Sprintf("%d %s", w.Code, w.Body)))
	if set := w.Header().Get("X-Session-Set"); set != "" {
		fmt.Println(set)
	}
}

func whoAmI(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	user, err := session.UserID()
	if err != nil { // The gateway does not know. That is not "nobody".
		http.Error(w, "try again later", http.StatusServiceUnavailable)
		return
	}
	if user == "" {
		fmt.Fprintln(w, "nobody is logged in")
		return
	}
	fmt.Fprintln(w, "user", user)
}

func ExampleSession_UserID() {
	call(whoAmI)
	// Output: 200 user 42
}

type line struct {
	SKU string `json:"sku"`
	Qty int    `json:"qty"`
}

func addToCart(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	var cart []line
	if err := session.Get("cart", &cart); err != nil && !errors.Is(err, upstream.ErrNoKey) {
		http.Error(w, "no cart", http.StatusInternalServerError)
		return
	}
	cart = append(cart, line{SKU: "B-2", Qty: 1})
	if err := session.Set("cart", cart); err != nil {
		http.Error(w, "no cart", http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, len(cart), "lines")
}

func ExampleSession_Set() {
	call(addToCart)
	// Output:
	// 200 2 lines
	// {"set":{"cart":[{"sku":"A-1","qty":2},{"sku":"B-2","qty":1}]}}
}

func ExampleSession_Flush() {
	call(func(w http.ResponseWriter, r *http.Request) {
		session, _ := upstream.FromContext(r.Context())
		if err := session.Flush(); err != nil {
			http.Error(w, "still logged in", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	// Output:
	// 303 <a href="/">See Other</a>.
	// {"flush":true}
}

func count(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	visits := 0
	err := session.Get("visits", &visits)
	if err == nil || errors.Is(err, upstream.ErrNoKey) {
		err = session.Set("visits", visits+1)
	}
	if err == nil { // If somebody else counts at the same time, the visitor gets a 409.
		err = session.OnlyIfUnchanged()
	}
	if err != nil {
		http.Error(w, "not counted", http.StatusInternalServerError)
	}
}

func ExampleSession_OnlyIfUnchanged() {
	call(count)
	// Output:
	// 200
	// {"if":"7SmKaZUC-dOfP_df","set":{"visits":1}}
}

func upgrade(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	if err := session.Set("seen", true); err != nil {
		http.Error(w, "no session", http.StatusInternalServerError)
		return
	}
	header := http.Header{}
	if set, err := session.Take(); err != nil {
		http.Error(w, "no session", http.StatusInternalServerError)
		return
	} else if set != "" {
		header.Set(upstream.SetHeader, set)
	}
	// upgrader.Upgrade(w, r, header) of github.com/gorilla/websocket writes the 101 with header. If it
	// answers with an error instead, the middleware puts the change onto that.
	handshake(w, r, header)
}

// handshake stands for the library's, on a connection that it does not like.
func handshake(w http.ResponseWriter, _ *http.Request, header http.Header) {
	fmt.Fprintln(w, header.Get(upstream.SetHeader))
}

func ExampleSession_Take() {
	call(upgrade)
	// Output:
	// 200 {"set":{"seen":true}}
	// {"set":{"seen":true}}
}

var keysFromAFile = func(_ context.Context, kid string) (string, error) {
	// The kid is what a stranger may have written: it is compared, never a path.
	if kid != "orders-1" && kid != "orders-2" {
		return "", nil
	}
	secret, err := os.ReadFile("secrets/" + kid)
	return string(secret), err
}

func ExampleConfig_keyFunc() {
	_, err := upstream.New(upstream.Config{KeyFunc: keysFromAFile, Audience: "orders", Issuer: "https://shop.example"})
	fmt.Println(err)
	// Output: <nil>
}
