// Calls a Greeter by @grpc/grpc-js, in every way, and prints what came of each as JSON: client.js HOST:PORT [plain].
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [where, kind = 'tls'] = process.argv.slice(2);
const load = (file) => grpc.loadPackageDefinition(loader.loadSync(`/app/${file}`));
const credentials = kind === 'plain' ? grpc.credentials.createInsecure() : grpc.credentials.createSsl();
const { Greeter } = load('greeter.proto').greet.v1;
const { Health } = load('health.proto').grpc.health.v1;
const stub = new Greeter(where, credentials);
const name = (code) => grpc.status[code];

const ask = (message, options = {}) => new Promise((resolve) => {
  stub.Unary(message, new grpc.Metadata(), options, (error, reply) => resolve(error || reply));
});

const unary = () => new Promise((resolve, reject) => {
  const metadata = new grpc.Metadata();
  metadata.set('x-token', 'abc');
  metadata.set('x-in-bin', Buffer.from([255, 0]));
  const told = [];
  const call = stub.Unary({ name: 'you' }, metadata, (error, reply) => (error ? reject(error) : told.unshift(reply.text)));
  call.on('metadata', (initial) => told.push(initial.get('x-initial')[0], initial.get('x-raw-bin')[0].toString('hex')));
  call.on('status', (status) => resolve([...told, status.metadata.get('x-trailing')[0]]));
});

const heard = (call, each = () => {}) => new Promise((resolve) => {
  const texts = [];
  call.on('data', (reply) => { texts.push(reply.text); each(texts); });
  call.on('end', () => {});
  call.on('error', () => {});
  call.on('status', (status) => resolve([texts, name(status.code)]));
});

const up = () => new Promise((resolve, reject) => {
  const call = stub.Up((error, reply) => (error ? reject(error) : resolve(reply.text)));
  for (const each of 'abc') call.write({ name: each });
  call.end();
});

const both = async () => {
  const call = stub.Both();
  const words = ['two'];
  const told = heard(call, () => (words.length ? call.write({ name: words.shift() }) : call.end()));
  call.write({ name: 'one' });
  return (await told)[0];
};

const cancel = async () => {
  const call = stub.Down({ name: 'endless', count: 1000000000 });
  return (await heard(call, () => call.cancel()))[1];
};

const health = () => new Promise((resolve, reject) => {
  const options = { 'grpc.max_receive_message_length': -1 };
  new Health(where, credentials, options).Check({}, (error, reply) => (error ? reject(error) : resolve(reply.status)));
});

(async () => {
  const big = { blob: Buffer.alloc(3000000) };
  const abort = await ask({ name: 'abort' });
  const rich = await ask({ name: 'rich' });
  const details = (rich.metadata.get('grpc-status-details-bin')[0] || '').toString('latin1');
  console.log(JSON.stringify({
    unary: await unary(),
    down: (await heard(stub.Down({ count: 3 })))[0],
    up: await up(),
    both: await both(),
    abort: [name(abort.code), abort.details],
    rich: [name(rich.code), details.includes('too much')],
    deadline: name((await ask({ name: 'slow' }, { deadline: Date.now() + 500 })).code),
    cancel: await cancel(),
    big: (await ask(big)).blob.length,
    'too big': name((await ask({ blob: Buffer.alloc(5000000) })).code),
    health: await health(),
  }));
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
