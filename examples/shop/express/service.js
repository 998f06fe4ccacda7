// The shop's service with Express: a page that shows the visitor's session, and its buttons.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import express from 'express';
import nunjucks from 'nunjucks';
import { djangoSession } from 'session-gateway-upstream/express';

const PRODUCT = 'café crème';

const app = express();
nunjucks.configure(fileURLToPath(new URL('../pages', import.meta.url)), { autoescape: true, express: app });
app.use(
  djangoSession({
    keys: { 'express-1': readFileSync(process.env.SESSION_KEY_FILE, 'utf8') },
    audience: 'express',
    issuer: 'https://shop.example',
  }),
);

// The page. To see it is a visit.
app.get('/express/', (req, res) => {
  const session = req.djangoSession;
  session.data.visits_express = (session.data.visits_express ?? 0) + 1;
  res.render('page.html', {
    service: 'Express',
    here: '/express/',
    product: PRODUCT,
    user: session.user,
    session: session.data,
    rows: Object.entries(session.data)
      .sort()
      .map(([name, value]) => [name, JSON.stringify(value)]),
  });
});

// One of the buttons. The gateway lets them through from the site's own pages only.
app.post('/express/', express.urlencoded({ extended: false }), (req, res) => {
  const session = req.djangoSession;
  switch (req.body?.do) {
    case 'add':
      // What another page puts in meanwhile is not lost: one of the two gets a 409.
      session.onlyIfUnchanged();
      (session.data.cart ??= []).push(PRODUCT);
      break;
    case 'empty':
      delete session.data.cart;
      break;
    case 'gift':
      session.data.gift = !session.data.gift;
      break;
    case 'logout':
      session.flush();
  }
  if (['en', 'de', 'fr'].includes(req.body?.language)) session.data.language = req.body.language;
  res.redirect(303, '/express/');
});

app.listen(Number(process.env.PORT), '127.0.0.1');
