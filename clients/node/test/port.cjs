// Loaded before a program of the README: it asks for port 3001, gets a free one, and the test is told which.
const { Server } = require('node:net');

const { listen } = Server.prototype;
Server.prototype.listen = function (first, ...more) {
  this.once('listening', () => process.send(this.address()));
  if (first === 3001) first = 0;
  else if (first.port === 3001) first = { ...first, port: 0 };
  return listen.call(this, first, ...more);
};
