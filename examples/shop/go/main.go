// Command shop is the shop's service in Go: a page that shows the visitor's
// session, and its buttons.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"

	"session-gateway/upstream"
)

const product = "plush gopher"

//go:embed page.html
var source string

var page = template.Must(template.New("page").Parse(source))

func main() {
	key, err := os.ReadFile(os.Getenv("SESSION_KEY_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := upstream.New(upstream.Config{
		Keys:     map[string]string{"go-1": string(key)},
		Audience: "go",
		Issuer:   "https://shop.example",
	})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/go/", shop)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), sessions.Handler(http.DefaultServeMux)))
}

func shop(w http.ResponseWriter, r *http.Request) {
	session, _ := upstream.FromContext(r.Context())
	var body bytes.Buffer
	var err error
	if r.Method == http.MethodPost {
		err = press(session, r.PostFormValue("do"), r.PostFormValue("language"))
	} else {
		err = show(session, &body)
	}
	switch {
	case err != nil:
		log.Print(err)
		http.Error(w, "Something is wrong with the session.", http.StatusInternalServerError)
	case r.Method == http.MethodPost:
		http.Redirect(w, r, "/go/", http.StatusSeeOther)
	default:
		body.WriteTo(w)
	}
}

// show counts the visit and writes the page.
func show(session *upstream.Session, body *bytes.Buffer) error {
	var visits int
	if err := get(session, "visits_go", &visits); err != nil {
		return err
	}
	if err := session.Set("visits_go", visits+1); err != nil {
		return err
	}
	var user struct{ Username string }
	if err := session.User(&user); err != nil && !errors.Is(err, upstream.ErrNoUser) {
		return err
	}
	data, err := session.All()
	if err != nil {
		return err
	}
	values, rows := map[string]any{}, map[string]string{}
	for name, value := range data {
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		values[name], rows[name] = v, string(text)
	}
	return page.Execute(body, map[string]any{"User": user, "Product": product, "Session": values, "Rows": rows})
}

// press is one of the buttons. The gateway lets them through from the site's own pages only.
func press(session *upstream.Session, do, language string) error {
	switch {
	case do == "add":
		var cart []string
		if err := get(session, "cart", &cart); err != nil {
			return err
		}
		// What another page puts in meanwhile is not lost: one of the two gets a 409.
		if err := session.OnlyIfUnchanged(); err != nil {
			return err
		}
		return session.Set("cart", append(cart, product))
	case do == "empty":
		return session.Delete("cart")
	case do == "gift":
		var gift bool
		if err := get(session, "gift", &gift); err != nil {
			return err
		}
		return session.Set("gift", !gift)
	case do == "logout":
		return session.Flush()
	case language == "en" || language == "de" || language == "fr":
		return session.Set("language", language)
	}
	return nil
}

// get reads a key; where there is none, value stays as it is.
func get(session *upstream.Session, key string, value any) error {
	if err := session.Get(key, value); !errors.Is(err, upstream.ErrNoKey) {
		return err
	}
	return nil
}
