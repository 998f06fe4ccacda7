// Package upstream is the side of a Go service behind session-gateway: net/http
// middleware that checks X-Session, gives the handler the visitor's Django
// session, and answers what the handler changed as X-Session-Set.
//
//	key, err := os.ReadFile("secrets/orders_key")
//	if err != nil {
//		log.Fatal(err)
//	}
//	sessions, err := upstream.New(upstream.Config{
//		Keys:     map[string]string{"orders-1": string(key)},
//		Audience: "orders",
//		Issuer:   "https://shop.example",
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	log.Fatal(http.ListenAndServe("127.0.0.1:3001", sessions.Handler(mux)))
//
// In a handler:
//
//	session, _ := upstream.FromContext(r.Context())
//	var cart []string
//	if err := session.Get("cart", &cart); err != nil && !errors.Is(err, upstream.ErrNoKey) {
//		http.Error(w, "no session", http.StatusInternalServerError)
//		return
//	}
//	err := session.OnlyIfUnchanged() // The visitor gets a 409 if somebody else was faster.
//	if err == nil {
//		err = session.Set("cart", append(cart, "book"))
//	}
//	if err != nil {
//		http.Error(w, "no cart", http.StatusInternalServerError)
//		return
//	}
//
// A request without a good X-Session did not come through the gateway: it is
// answered with 401, and a line of the log says why.
//
// Only what differs from what came is sent, by top-level key; where nothing
// differs there is no X-Session-Set. The change goes out with the head of the
// response: at WriteHeader, at the first Write or Flush, or when the handler
// returns. After that every change is [ErrClosed]. Answers of 500 and above
// change nothing, as in Django.
package upstream
