// What people do in the web app, from end to end.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { SCHEMES, SIZES, World } from './world.mjs';

let world;
before(async () => {
  world = await World.start();
}, { timeout: 180_000 });
after(async () => {
  await world?.stop();
});

/** An account whose newest line was led to by a webhook, and that webhook. */
async function traceable() {
  const statement = await world.json('ledger', 'account', 'assets:disputes:held', '--currency', 'usd');
  for (const line of [...(statement.postings ?? statement[0].postings)].reverse()) {
    if (line.cause.stripe_event) return { account: 'assets:disputes:held', line, event: line.cause.stripe_event };
  }
  throw new Error('the demo has a dispute');
}

test('finance goes from the trial balance to the raw event behind a cent in four clicks', async () => {
  const { account, line, event } = await traceable();
  const finance = await world.signedIn('finance');
  const { page } = finance;
  await finance.open('/ledger/trial-balance?currency=usd');
  await finance.click(page.getByRole('link', { name: account, exact: true }));
  await finance.heading(account).waitFor();
  await finance.click(page.locator(`a[href="/ledger/entries/${line.entry_id}"]`));
  await finance.heading(line.entry_id).waitFor();
  await finance.click(page.getByRole('link', { name: event }));
  await finance.heading(event).waitFor();
  const before = await position(page);
  await finance.click(page.getByRole('button', { name: 'Open', exact: true }));
  const body = page.getByLabel('The body, as Stripe sent it');
  await body.waitFor();
  assert.ok(finance.clicks <= 4, `${finance.clicks} clicks`);
  assert.equal(JSON.parse(await body.textContent()).id, event);

  // Who looked is on the page, for whoever comes next, and the page goes along with the journal.
  const readers = page.getByRole('region', { name: 'Who read its body' });
  await readers.getByText('finance:ana').waitFor();
  await readers.getByText(`Tracing entry ${line.entry_id}`).waitFor();
  await page.waitForFunction(
    (before) => Number(document.querySelector('.foot').textContent.match(/position ([\d,]+)/)?.[1].replaceAll(',', '')) > before,
    before,
  );
  assert.deepEqual(await finance.violations(), []);
  await finance.leave();
});

async function position(page) {
  const foot = page.locator('.foot', { hasText: /Live, at journal position/ });
  return Number((await foot.textContent()).match(/position ([\d,]+)/)[1].replaceAll(',', ''));
}

test('an event that was erased says so, and is shown to nobody', async () => {
  const entry = await traceable();
  const finance = await world.signedIn('finance');
  await world.sql(`SELECT vault.destroy(ARRAY['stripe_event'], ARRAY['${entry.event}'])`);
  await finance.open(`/stripe/events/${entry.event}`);
  await finance.page.getByLabel('Reason').fill('an auditor asks');
  await finance.page.getByRole('button', { name: 'Open', exact: true }).click();
  await finance.page.getByText('Erased.', { exact: true }).waitFor();
  assert.equal(await finance.page.locator('pre').count(), 0);
  assert.deepEqual(await finance.violations(), []);
  // The answer is 410, which a browser notes on its console.
  finance.errors = finance.errors.filter((error) => !error.includes('410'));
  await finance.leave();
});

test('finance asks as of a position, and the address is the question', async () => {
  const finance = await world.signedIn('finance');
  const { page } = finance;
  await finance.open('/ledger/trial-balance');
  await page.getByRole('combobox', { name: 'As of' }).selectOption('position');
  await page.getByLabel('Journal position').fill('9000');
  await page.getByRole('button', { name: 'Show' }).click();
  await page.getByText('As of journal position 9,000, by effective date').waitFor();
  await page.getByRole('combobox', { name: 'By' }).selectOption('recorded');
  await page.getByText('As of journal position 9,000, by date of recording').waitFor();
  await page.getByRole('combobox', { name: 'Currency' }).selectOption('kwd');
  await page.waitForURL('**/ledger/trial-balance?as_of=9000&by=recorded&currency=kwd');
  await page.getByText('Total, balanced').waitFor();
  await finance.settled();
  assert.equal(await page.getByRole('table').count(), 1);
  const expected = await world.json('ledger', 'trial-balance', '--as-of', '9000', '--by', 'recorded', '--currency', 'kwd');
  const shown = await page.locator('tbody tr:not(.group)').count();
  assert.equal(shown, expected.currencies[0].accounts.length);
  const text = await page.getByRole('table').innerText();
  await page.reload();
  await finance.settled();
  assert.equal(await page.getByRole('table').innerText(), text);
  await page.goBack();
  await page.getByText('Total, balanced').nth(1).waitFor();

  // A question about a time before the first entry is an error that says so, never an empty table.
  await page.getByRole('combobox', { name: 'As of' }).selectOption('instant');
  await page.getByLabel('Instant, UTC').fill('2001-01-01T00:00');
  await page.getByRole('button', { name: 'Show' }).click();
  await page.getByRole('alert').getByText('as_of').waitFor();
  assert.deepEqual(await finance.violations(), []);
  finance.errors = finance.errors.filter((error) => !error.includes('422'));
  await finance.leave();
});

test('finance says whose money it is, and it leaves suspense', async () => {
  const finance = await world.signedIn('finance');
  const { page } = finance;
  const waiting = (await world.json('ledger', 'suspense')).filter((item) => item.object.startsWith('ch_'));
  const { object } = waiting[0];
  await finance.open('/ledger/suspense');
  await page.getByRole('button', { name: `Attribute ${object}` }).click();
  const dialog = page.getByRole('dialog', { name: 'Whose money is it?' });
  assert.deepEqual(await finance.violations(), []);
  assert.equal(await dialog.getByLabel('Paid for').inputValue(), '', 'nothing is said that nobody chose');
  // What makes no sense is not sent; what the gateway refuses is said in the form.
  await dialog.getByLabel('Creator', { exact: true }).fill('somebody');
  await dialog.getByRole('button', { name: 'Attribute' }).click();
  assert.ok(await dialog.getByLabel('Creator', { exact: true }).evaluate((field) => !field.validity.valid));
  await dialog.getByLabel('Creator', { exact: true }).fill('crt_aurora');
  await dialog.getByLabel('Paid for').selectOption('tip');
  await dialog.getByLabel('Reason').fill('the creator sent the receipt');
  await dialog.getByText('Tax and share').click();
  await dialog.getByLabel('Tax in it').fill('999999999999');
  await dialog.getByRole('button', { name: 'Attribute' }).click();
  await dialog.getByRole('alert').getByText('is more than the payment').waitFor();
  assert.deepEqual(await finance.violations(), []);
  await dialog.getByLabel('Tax in it').fill('0');
  await dialog.getByRole('button', { name: 'Attribute' }).click();
  await page.getByText(`${object} is attributed`).waitFor();
  await page.getByRole('row', { name: object }).waitFor({ state: 'detached' });
  assert.ok(!(await world.json('ledger', 'suspense')).some((item) => item.object === object));

  // A word that was wrong is mended from the entry that it led to.
  const account = await world.json('ledger', 'account', waiting[0].account, '--currency', waiting[0].currency);
  const line = [account].flat()[0].postings.findLast(({ entry_id: id }) => id.startsWith(`${object}:`));
  await finance.open(`/ledger/entries/${line.entry_id}`);
  await page.getByRole('button', { name: 'Attribute' }).click();
  await dialog.getByLabel('Creator', { exact: true }).fill('crt_birch');
  await dialog.getByText('Tax and share').click();
  await dialog.getByLabel("Creator's share").fill('10000');
  await dialog.getByLabel('Reason').fill('another creator');
  await dialog.getByRole('button', { name: 'Attribute' }).click();
  await page.getByText(`${object} is attributed`).waitFor();
  finance.errors = finance.errors.filter((error) => !error.includes('422'));
  await finance.leave();
});

test('an operator starts a rebuild, watches it to its end, and rolls back', async () => {
  const operator = await world.signedIn('operator');
  const { page } = operator;
  await operator.open('/ops/projections');
  await page.getByRole('link', { name: 'postings' }).click();
  await operator.heading('postings').waitFor();
  await page.getByRole('button', { name: 'Rebuild' }).click();
  const dialog = page.getByRole('dialog', { name: 'Rebuild postings?' });
  assert.deepEqual(await operator.violations(), []);
  await dialog.getByRole('button', { name: 'Rebuild' }).click();

  const operation = page.getByRole('region', { name: /^Rebuild \d+$/ });
  await operation.getByRole('progressbar').waitFor();
  assert.deepEqual(await operator.violations(), []);
  await operation.getByText('succeeded').waitFor();
  await operation.getByText('Generation 2 is live.').waitFor();
  await operation.getByText('equal, row by row').waitFor();
  const generations = page.getByRole('region', { name: 'Generations' });
  await generations.getByRole('row', { name: /2 live/ }).waitFor();
  await generations.getByRole('row', { name: /1 kept/ }).waitFor();
  assert.deepEqual(await operator.violations(), []);

  await page.getByRole('button', { name: 'Roll back' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click();
  await page.getByRole('region', { name: /^Rollback \d+$/ }).getByText('Generation 1 is live again.').waitFor();
  await generations.getByRole('row', { name: /1 live/ }).waitFor();
  const status = await world.json('projections', 'status');
  assert.equal(status.find((runner) => runner.name === 'postings').generation, 1);
  assert.deepEqual(await operator.violations(), []);
  await operator.leave();
});

test('an operator pauses a runner and resumes it', async () => {
  const operator = await world.signedIn('operator');
  const { page } = operator;
  await operator.open('/ops/projections/suspense');
  await page.getByRole('button', { name: 'Pause' }).click();
  // Escape leaves everything as it is, and the question can be asked again.
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Pause' }).click();
  await page.locator('.page-heading').getByText('paused').waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
  await page.locator('.page-heading').getByText('live').waitFor();
  await operator.leave();
});

/** Books ten dollars by hand; answers the receipt, with the entry's id and the position that it came to. */
async function booked(description, subject = 'finance:ana') {
  const by = ['--token', await world.token('finance', subject)];
  const lines = ['--debit', 'assets:bank=1000', '--credit', 'income:other=1000', '--currency', 'usd'];
  const said = ['--description', description, '--reason', 'bank statement', '--occurred', '2026-10-31T00:00:00Z'];
  return world.json('ledger', 'post', ...lines, ...said, ...by);
}

test('while one projection stands still, pages follow the others and the footer names it', async () => {
  const operator = await world.signedIn('admin');
  const { page } = operator;
  await operator.open('/ledger/trial-balance');
  const foot = page.locator('.foot');
  await foot.getByText('Live, at journal position').waitFor();
  await world.fanledger('projections', 'pause', 'suspense');
  try {
    const { position } = await booked('Interest of October');
    await page.getByText(`At journal position ${position.toLocaleString('en')}.`).waitFor();
    await foot.getByText(/^Held back at journal position [\d,]+ by/).waitFor();
    assert.deepEqual(await operator.violations(), []);
    // It is a click away for whoever may do something about it.
    await foot.getByRole('link', { name: 'suspense' }).click();
    await operator.heading('suspense').waitFor();
  } finally {
    await world.fanledger('projections', 'resume', 'suspense');
  }
  await foot.getByText('Live, at journal position').waitFor();
  await operator.leave();
});

test('a gateway that is heard again is live again, though nothing has happened meanwhile', async () => {
  const operator = await world.signedIn('operator');
  const { page } = operator;
  await page.locator('.foot').getByText('Live, at journal position').waitFor();
  const told = { position: await position(page), projections: {} };
  // One event, and the stream is at its end.
  const body = `id: ${told.position}\nevent: position\ndata: ${JSON.stringify(told)}\n\n`;
  let asked = 0;
  await page.route('**/api/v1/stream', (route) => {
    asked += 1;
    return route.fulfill({ contentType: 'text/event-stream', body });
  });
  await page.reload();
  await page.locator('.foot').getByText('The gateway is not heard').waitFor();
  await page.unroute('**/api/v1/stream');
  assert.ok(asked > 0);
  await page.locator('.foot').getByText('Live, at journal position').waitFor();
  await operator.leave();
});

test('an entry that was taken back says so, and so does the one that takes it back', async () => {
  const entry = await booked('Interest, booked twice');
  const by = ['--token', await world.token('finance', 'finance:ben')];
  const reversal = await world.json('ledger', 'reverse', entry.entry_id, '--reason', 'it was booked twice', ...by);
  const finance = await world.signedIn('finance');
  const { page } = finance;
  await finance.open(`/ledger/entries/${entry.entry_id}`);
  const note = page.getByRole('note');
  await note.getByText('This entry was taken back').waitFor();
  await note.getByText('it was booked twice').waitFor();
  assert.deepEqual(await finance.violations(), []);
  await note.getByRole('link', { name: reversal.entry_id }).click();
  await finance.heading(reversal.entry_id).waitFor();
  await note.getByText('This entry takes back').waitFor();
  await note.getByRole('link', { name: entry.entry_id }).click();
  await finance.heading(entry.entry_id).waitFor();
  await finance.leave();
});

test('an entry that somebody wants taken back stands until a second person agrees', async () => {
  // Beyond what one person may book alone.
  const lines = ['--debit', 'assets:bank=2000000', '--credit', 'income:other=2000000', '--currency', 'usd'];
  const said = ['--description', 'A grant', '--reason', 'bank statement', '--occurred', '2026-10-31T00:00:00Z'];
  const [ana, ben] = [['--token', await world.token('finance')], ['--token', await world.token('finance', 'finance:ben')]];
  const { id } = await world.json('ledger', 'post', ...lines, ...said, ...ana);
  const entry = await world.json('ledger', 'approve', id, ...ben);
  await world.json('ledger', 'reverse', entry.entry_id, '--reason', 'the bank took it back', ...ben);
  const finance = await world.signedIn('finance');
  await finance.open(`/ledger/entries/${entry.entry_id}`);
  await finance.page.getByRole('note').getByText('It stands until a second person agrees').waitFor();
  assert.deepEqual(await finance.violations(), []);
  await finance.leave();
});

test("an account's lines show the dates that were asked for", async () => {
  const finance = await world.signedIn('finance');
  const { page } = finance;
  const account = 'assets:disputes:held';
  for (const [by, name] of [['effective', 'Effective'], ['occurred', 'Occurred'], ['recorded', 'Recorded']]) {
    const [{ postings }] = [await world.json('ledger', 'account', account, '--currency', 'usd', '--by', by)].flat();
    await finance.open(`/ledger/accounts/${account}?currency=usd&by=${by}`);
    await page.getByRole('columnheader', { name, exact: true }).waitFor();
    const shown = page.locator(`td[data-label="${name}"] > time`);
    assert.equal(await shown.first().getAttribute('datetime'), postings.at(-1)[`${by}_at`]);
    assert.deepEqual(await finance.violations(), []);
  }
  await finance.leave();
});

test('a token of a month stays signed in for a month', async () => {
  const visitor = await world.visitor();
  const { page } = visitor;
  await page.clock.install();
  const token = await world.fanledger('token', 'mint', '--role', 'fan', '--subject', 'fan:ana', '--ttl', '30d');
  await page.goto(`${world.url}/sign-in#${token}`);
  await page.locator('.shell').waitFor();
  // A browser's timer reaches 24 days and no further.
  for (let days = 0; days < 29; days += 1) await page.clock.fastForward('24:00:00');
  assert.ok(await page.locator('.shell').isVisible(), 'signed out too early');
  await page.clock.fastForward('25:00:00');
  await page.getByText('Your token has expired. Sign in again.').waitFor();
  await visitor.leave();
});

test('by keyboard alone one signs in and reads the trial balance', async () => {
  const visitor = await world.visitor();
  const { page } = visitor;
  await page.goto(`${world.url}/ledger/trial-balance`);
  await page.getByLabel('Token').waitFor();
  await page.keyboard.press('Tab');
  await page.keyboard.insertText(await world.token('finance'));
  await page.keyboard.press('Enter');
  // The page that was asked for, with no detour.
  await visitor.heading('Trial balance').waitFor();
  await visitor.settled();
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the page');
  await page.keyboard.press('Enter');
  const link = page.locator('tbody a').first();
  for (let presses = 0; presses < 20; presses += 1) {
    if (await link.evaluate((link) => link === document.activeElement)) break;
    await page.keyboard.press('Tab');
  }
  const account = await link.textContent();
  await page.keyboard.press('Enter');
  await visitor.heading(account).waitFor();
  // The heading has the focus: a screen reader reads it, and Tab goes on from there.
  await page.waitForFunction(() => document.activeElement?.id === 'heading');
  await visitor.leave();
});

test('a token comes by a link and leaves no trace in it', async () => {
  const visitor = await world.visitor();
  // Followed where the form is open already, it loads no new page.
  await visitor.open('/sign-in');
  await visitor.page.goto(`${world.url}/sign-in#${await world.token('finance')}`);
  await visitor.heading('Home').waitFor();
  assert.equal(visitor.page.url(), `${world.url}/`);
  // Kept for this tab, and for no other place.
  await visitor.page.reload();
  await visitor.heading('Home').waitFor();
  assert.deepEqual(await visitor.page.evaluate(() => [Object.keys(localStorage), document.cookie]), [[], '']);
  await visitor.page.getByRole('button', { name: 'Sign out' }).click();
  await visitor.heading('Sign in').waitFor();
  assert.equal(await visitor.page.evaluate(() => sessionStorage.length), 0);
  await visitor.leave();
});

test('a token that does not hold leads back to signing in, with the reason', async () => {
  const visitor = await world.visitor();
  const { page } = visitor;
  await page.goto(`${world.url}/sign-in`);
  await page.getByLabel('Token').fill('not a token');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').getByText('This is not a token.').waitFor();
  assert.deepEqual(await visitor.violations(), []);
  const good = await world.token('finance');
  const signature = good.lastIndexOf('.') + 1;
  const bad = good.slice(0, signature) + (good[signature] === 'A' ? 'B' : 'A') + good.slice(signature + 1);
  await page.getByLabel('Token').fill(bad);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('Your token is not accepted any more').waitFor();
  await visitor.heading('Sign in').waitFor();
  // The answer is 401, which a browser notes on its console.
  visitor.errors = visitor.errors.filter((error) => !error.includes('401'));
  await visitor.leave();
});

test('another role has another menu, and is told so elsewhere', async () => {
  const fan = await world.signedIn('fan');
  await fan.page.getByText('There is nothing here for this token yet.').waitFor();
  assert.equal(await fan.page.getByRole('navigation').getByRole('link').count(), 1);
  // Nobody tells them how far the projections are, so the page does not say that it asks.
  assert.equal((await fan.page.locator('.foot').innerText()).trim(), 'All times are UTC.');
  for (const path of ['/ledger/trial-balance', '/ops/projections']) {
    await fan.open(path);
    await fan.heading('Not for this token').waitFor();
  }
  await fan.open('/ledger/nothing');
  await fan.heading('No such page').waitFor();
  await fan.leave();
});

/** The books of May are closed, once for all journeys; what `fanledger ledger close` said of it. */
let closing;
async function closed() {
  closing ??= await world.json('ledger', 'close', '2026-05', '--token', await world.token('finance'));
  return closing.closing;
}

test('finance goes from a creator to the entries behind a figure, and they add up to it', async () => {
  const finance = await world.signedIn('finance');
  const { page } = finance;
  await page.getByRole('link', { name: 'Creators' }).click();
  const [balance] = (await world.json('ledger', 'creators')).filter(({ creator }) => creator === 'crt_basalt');
  const row = page.getByRole('row', { name: 'crt_basalt USD' });
  const written = (minor) => (minor / 100).toLocaleString('en', { minimumFractionDigits: 2 });
  const buckets = ['pending', 'available', 'held', 'balance'].map((bucket) => written(balance[`${bucket}_minor`]));
  assert.deepEqual(await row.locator('.money').allInnerTexts(), buckets);
  await row.getByRole('link').click();
  await finance.heading('crt_basalt').waitFor();
  await page.getByText('Statement from the beginning until now').waitFor();
  await page.getByLabel('Month', { exact: true }).fill('2026-09');
  await page.waitForURL('**/ledger/creators/crt_basalt?period=2026-09');
  await page.getByText('Statement of 2026-09').waitFor();
  const table = page.getByRole('region', { name: 'Statement in USD' });
  const [statement] = (await world.json('ledger', 'statement', 'crt_basalt', '--period', '2026-09')).currencies;
  assert.equal(await table.getByRole('row', { name: 'Opening balance' }).getByRole('link').innerText(), written(statement.opening_minor));
  await table.getByRole('row', { name: `Closing balance ${written(statement.closing_minor)} USD` }).waitFor();
  for (const { line, amount_minor, entries } of statement.lines.filter(({ entries }) => entries > 0)) {
    const name = `${line[0].toUpperCase()}${line.slice(1).replace('_', ' ')}`;
    const figure = table.getByRole('row', { name, exact: false }).first().getByRole('link');
    assert.equal(await figure.innerText(), written(amount_minor), line);
    await figure.click();
    await page.getByRole('heading', { name: `Entries behind: ${line.replace('_', ' ')}, USD` }).waitFor();
    await page.waitForFunction(() => document.activeElement?.id === 'entries');
    await page.getByText(`${entries} line${entries === 1 ? '' : 's'}, that is all.`).waitFor();
    const amounts = await page.getByRole('region', { name: 'Entries' }).locator('td[data-label="Amount"] .money').allInnerTexts();
    const sum = amounts.reduce((sum, text) => sum + Math.round(Number(text.split(/\s/)[0].replaceAll(',', '')) * 100), 0);
    assert.equal(sum, amount_minor, line);
  }
  assert.deepEqual(await finance.violations(), []);
  // Of what was paid for one kind, and on to an entry and back.
  await table.getByRole('row', { name: 'tip' }).first().getByRole('link').click();
  await page.getByRole('heading', { name: 'Entries behind: sales, tip, USD' }).waitFor();
  await finance.settled();
  await page.getByRole('region', { name: 'Entries' }).getByRole('link').first().click();
  await page.getByText('What led to it').waitFor();
  await page.goBack();
  await page.getByRole('heading', { name: 'Entries behind: sales, tip, USD' }).waitFor();
  // Where the money is: the account as of the month's end.
  const [bucket] = ['available', 'pending'].filter((bucket) => statement.closing[`${bucket}_minor`] !== 0);
  await table.getByRole('row', { name: bucket }).getByRole('link').click();
  await finance.heading(`liabilities:creators:crt_basalt:${bucket}`).waitFor();
  const side = statement.closing[`${bucket}_minor`] < 0 ? 'debit' : 'credit';
  await page.getByRole('link', { name: `USD ${written(Math.abs(statement.closing[`${bucket}_minor`]))} ${side}` }).waitFor();
  await finance.open('/ledger/creators/crt_nobody');
  await page.getByRole('alert').waitFor();
  finance.errors = finance.errors.filter((error) => !error.includes('404'));
  await finance.leave();
});

test('finance sees what is closed, by whom, and what fixes it', async () => {
  const finance = await world.signedIn('finance');
  const { page } = finance;
  await page.getByRole('link', { name: 'Periods' }).click();
  await page.getByText('Nothing is closed yet.').waitFor();
  assert.deepEqual(await finance.violations(), []);
  // It is there by itself once it is done.
  const { digest, chain } = await closed();
  await page.getByText('Open from 2026-06-01 00:00:00 on; 2026-06 can be closed next').waitFor();
  const row = page.getByRole('row', { name: /^2026-05 closed .*finance:ana/ });
  await row.getByRole('link', { name: '2026-05' }).click();
  await page.getByText('As 2026-05 was closed, by effective date').waitFor();
  const fixed = page.getByRole('region', { name: '2026-05 is closed' });
  for (const text of [digest, chain, 'by finance:ana']) await fixed.getByText(text).waitFor();
  assert.equal(await page.getByRole('combobox', { name: 'By' }).count(), 0, 'a closed month is by effective date');
  // From there to an account as it was then, and back to now.
  await page.getByRole('link', { name: 'assets:stripe:clearing' }).first().click();
  await page.waitForURL('**/ledger/accounts/assets:stripe:clearing?period=2026-05&currency=*');
  await page.getByText('As 2026-05 was closed').waitFor();
  await finance.settled();
  assert.deepEqual(await finance.violations(), []);
  await page.getByRole('combobox', { name: 'As of' }).selectOption('now');
  await page.getByText('As of now, by effective date').waitFor();
  await page.getByRole('combobox', { name: 'As of' }).selectOption('month');
  await page.getByLabel('Month', { exact: true }).fill('2026-05');
  await page.getByRole('button', { name: 'Show', exact: true }).click();
  await page.getByText('As 2026-05 was closed').waitFor();
  await finance.leave();
});

test('the first load costs no more than it may', async () => {
  const visitor = await world.visitor();
  const devtools = await visitor.context.newCDPSession(visitor.page);
  const sizes = new Map();
  const kinds = new Map();
  devtools.on('Network.responseReceived', ({ requestId, response }) => kinds.set(requestId, response));
  devtools.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => sizes.set(requestId, encodedDataLength));
  await devtools.send('Network.enable');
  await visitor.open('/sign-in');
  let bytes = 0;
  for (const [request, { url, mimeType, headers }] of kinds) {
    if (!['text/javascript', 'application/wasm'].includes(mimeType)) continue;
    assert.match(url, /\/assets\/[a-z]+-[0-9a-f]{16}\.(js|wasm)$/);
    assert.ok(headers['content-encoding'], `${url} is not compressed`);
    assert.match(headers['cache-control'], /immutable/);
    bytes += sizes.get(request);
  }
  assert.ok(bytes > 10_000 && bytes <= 250_000, `${bytes} bytes of wasm and JavaScript`);
  const before = kinds.size;
  await visitor.page.reload();
  await visitor.settled();
  for (const [request, response] of [...kinds].slice(before)) {
    if (response.url.includes('/assets/')) assert.ok(response.fromDiskCache || !sizes.get(request), `${response.url} is fetched again`);
  }
  await visitor.leave();
});

test('each page is fit for everybody, on a phone and on a desk, in light and in dark', async (t) => {
  const { account, line } = await traceable();
  const events = (await world.json('ledger', 'entry', line.entry_id)).cause.stripe_events;
  await closed();
  const reversed = await booked('Interest, taken back');
  const by = ['--token', await world.token('finance')];
  await world.json('ledger', 'reverse', reversed.entry_id, '--reason', 'booked twice', ...by);
  const pages = {
    finance: [
      '/',
      '/ledger/trial-balance',
      '/ledger/trial-balance?period=2026-05',
      '/ledger/creators',
      '/ledger/creators/crt_basalt?period=2026-09&line=sales&currency=usd',
      '/ledger/periods',
      `/ledger/entries/${reversed.entry_id}`,
      `/ledger/accounts/${account}`,
      `/ledger/entries/${line.entry_id}`,
      `/stripe/events/${events[0].id}`,
      '/ledger/suspense',
      '/ledger/awaited',
      '/ledger/nothing',
    ],
    operator: ['/', '/ops/projections', '/ops/projections/balances', '/ops/projections/none'],
  };
  for (const [device, size] of Object.entries(SIZES)) {
    for (const scheme of SCHEMES) {
      for (const role of Object.keys(pages)) {
        await t.test(`${role}, ${device}, ${scheme}`, async () => {
          const visitor = await world.signedIn(role, { size, scheme });
          const titles = new Set();
          for (const path of pages[role]) {
            await visitor.open(path);
            assert.deepEqual(await visitor.violations(), [], path);
            assert.equal(await visitor.overflow(), 0, `${path} is wider than the window`);
            titles.add(await visitor.page.title());
          }
          assert.equal(titles.size, pages[role].length, 'each page has a title of its own');
          await visitor.leave();
        });
      }
      await t.test(`sign in, ${device}, ${scheme}`, async () => {
        const visitor = await world.visitor({ size, scheme });
        await visitor.open('/sign-in');
        assert.deepEqual(await visitor.violations(), []);
        assert.equal(await visitor.overflow(), 0);
        await visitor.leave();
      });
    }
  }
});
