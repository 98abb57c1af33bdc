// Prints what Stripe's Node SDK says of each vector: `node verdicts.cjs vectors.json`. Needs `npm install stripe`.
const fs = require('fs');
const Stripe = require('stripe');

const verdicts = {};
for (const vector of JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))) {
  const body = 'body_hex' in vector ? Buffer.from(vector.body_hex, 'hex') : Buffer.from(vector.body, 'utf8');
  verdicts[vector.name] = 'refused';
  for (const secret of vector.secrets) {
    try {
      Stripe.webhooks.signature.verifyHeader(body, vector.header, secret, Stripe.webhooks.DEFAULT_TOLERANCE, undefined, vector.now * 1000);
      verdicts[vector.name] = 'accepted';
    } catch {
      // Whatever it throws, the webhook is not believed.
    }
  }
}
console.log(JSON.stringify({ sdk: `stripe-node ${Stripe.PACKAGE_VERSION ?? new Stripe('sk_test_x').getConstant('PACKAGE_VERSION')}`, verdicts }));
