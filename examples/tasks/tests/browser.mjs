// Drives the page in a real browser: two organisations, three people, every feature.
// Arguments: the driver, the address of the application, and the directory of its fleet. A failed step ends with an error.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const [driver, address, dataDir] = process.argv.slice(2);
const { chromium } = await import(pathToFileURL(driver));
const executablePath = '/usr/bin/chromium';
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

const browser = await chromium.launch({ executablePath, args });
/** What the pages complained about. */
const complaints = [];
/** Answers that a step expects: the browser reports each refused request. */
const expected = [];

try {
  await play();
  assert.deepEqual(complaints, [], 'no errors in the console, and no violations of the content security policy');
} finally {
  await browser.close();
}

/** A browser of another person: nothing is shared with the others. */
async function newPerson() {
  const context = await browser.newContext({ reducedMotion: 'reduce' });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => {
    const failed = /status of (\d+)|net::(ERR_\w+)/.exec(message.text());
    const at = expected.indexOf(failed?.[2] ?? Number(failed?.[1]));
    if (at >= 0) expected.splice(at, 1);
    else if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  return page;
}

async function signUp(page, title, person) {
  await page.goto(address);
  await page.getByLabel('Organisation', { exact: true }).fill(title);
  await page.getByLabel('Your name').fill(person);
  await page.getByRole('button', { name: 'Create organisation' }).click();
}

// The server makes the organisation, and its answer is lost. The same form, sent again, leads to this organisation.
async function signsUpTwice(page) {
  expected.push('ERR_FAILED');
  await page.route('**/api/organisations', async (route) => {
    await route.fetch();
    await route.abort();
  }, { times: 1 });
  await signUp(page, 'Globex', 'Gina');
  await page.getByText('The server cannot be reached').waitFor();
  await page.getByRole('button', { name: 'Create organisation' }).click();
  await page.getByText('Nothing to do').waitFor();
}

async function addTask(page, title) {
  await page.getByLabel('New task').fill(title);
  await page.keyboard.press('Enter');
  await row(page, title).waitFor();
}

function row(page, title) {
  return page.getByRole('button', { name: title });
}

async function section(page, name) {
  await page.getByRole('link', { name, exact: true }).click();
}

async function openTask(page, title) {
  await row(page, title).click();
  const sheet = page.getByRole('dialog');
  await sheet.waitFor();
  return sheet;
}

async function play() {
  const alice = await newPerson();
  await signUp(alice, 'Acme Bakery', 'Alice');
  await alice.getByText('Nothing to do').waitFor();
  assert.equal(new URL(alice.url()).pathname, '/orgs/acme-bakery');
  await worksOnTasks(alice);
  await supports(await newPerson(), await newTicket(alice));
  await exportsTasks(alice);
  const bob = await newPerson();
  const link = await invites(alice, 'Bob');
  await viewsOnly(bob, link);
  await seesNothingOfOthers(await newPerson());
  await removesMember(alice, bob);
  await signsOut(alice);
}

async function worksOnTasks(page) {
  // Content of people is text, whatever it looks like.
  await addTask(page, '<img src=x onerror=alert(1)>');
  await addTask(page, 'Order flour');
  let sheet = await openTask(page, 'Order flour');
  await sheet.getByLabel('Title').fill('Order rye flour');
  await sheet.getByLabel('Notes').fill('=25 kg');
  await sheet.getByLabel('Due date').fill('2027-01-31');
  await sheet.getByLabel('Assignee').selectOption({ label: 'Alice' });
  await sheet.getByLabel('New comment').fill('The mill closes at noon.');
  await sheet.getByRole('button', { name: 'Comment' }).click();
  await sheet.getByRole('listitem').filter({ hasText: 'Alice' }).getByText('The mill closes at noon.').waitFor();
  await sheet.getByRole('button', { name: 'Save' }).click();
  await row(page, 'Order rye flour').getByText('1 comment').waitFor();
  sheet = await openTask(page, 'Order rye flour');
  assert.equal(await sheet.getByLabel('Notes').inputValue(), '=25 kg');
  await page.keyboard.press('Escape');
  await sheet.waitFor({ state: 'detached' });
  // Not `check`, which would look at the box again: its row is gone from the list by then.
  await page.getByLabel('Done: <img src=x onerror=alert(1)>').click();
  await row(page, '<img').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Done', exact: true }).click();
  sheet = await openTask(page, '<img');
  await sheet.getByRole('button', { name: 'Delete' }).click();
  await sheet.getByRole('button', { name: 'Really delete?' }).click();
  await page.getByText('Nothing done yet').waitFor();
  await refusesOldVersion(page);
  await updatesOtherPages(page);
}

// A change reaches another open page of the organisation, which is not loaded again.
async function updatesOtherPages(page) {
  const other = await page.context().newPage();
  await other.goto(page.url());
  await row(other, 'Order spelt flour').waitFor();
  await addTask(page, 'Seen at once');
  await row(other, 'Seen at once').waitFor();
  const sheet = await openTask(page, 'Seen at once');
  await sheet.getByRole('button', { name: 'Delete' }).click();
  await sheet.getByRole('button', { name: 'Really delete?' }).click();
  await row(other, 'Seen at once').waitFor({ state: 'detached' });
  await other.getByText('1 open, 0 done').waitFor();
  // A job makes the digest, and tells both pages.
  await page.getByRole('button', { name: 'Make a digest now' }).click();
  for (const open of [page, other]) await open.getByText(/Plan: free\. Digest of .*: 1 open, 0 overdue/).waitFor();
  await other.close();
}

// A second window changes the task while the first one has it open.
async function refusesOldVersion(page) {
  await page.getByRole('button', { name: 'Open', exact: true }).click();
  const sheet = await openTask(page, 'Order rye flour');
  const other = await page.context().newPage();
  await other.goto(page.url());
  const otherSheet = await openTask(other, 'Order rye flour');
  await otherSheet.getByLabel('Title').fill('Order spelt flour');
  await otherSheet.getByRole('button', { name: 'Save' }).click();
  await row(other, 'Order spelt flour').waitFor();
  await other.close();
  expected.push(409);
  await sheet.getByLabel('Title').fill('Lost');
  await sheet.getByRole('button', { name: 'Save' }).click();
  await sheet.getByText('task_changed').waitFor();
  assert.equal(await sheet.getByLabel('Title').inputValue(), 'Order spelt flour');
  assert.equal(await sheet.getByLabel('Notes').inputValue(), '=25 kg\n\nLost', 'the text of the person is kept');
  await sheet.getByRole('button', { name: 'Close' }).click();
  await row(page, 'Order spelt flour').waitFor();
}

/** The control plane's ticket to act as the person of this page. */
async function newTicket(page) {
  const { person } = await page.evaluate(async () => (await fetch('/orgs/acme-bakery/api/session')).json());
  const { admin_url } = JSON.parse(await readFile(`${dataDir}/endpoint.json`, 'utf8'));
  const token = (await readFile(`${dataDir}/operator.token`, 'utf8')).trim();
  const answer = await fetch(`${admin_url}/v1/tenants/acme-bakery/impersonations`, {
    method: 'POST',
    headers: { 'authorization': `Bearer ${token}`, 'content-type': 'application/json', 'idempotency-key': person },
    body: JSON.stringify({ member: person, reason: 'ticket 4711' }),
  });
  assert.equal(answer.status, 201);
  return (await answer.json()).ticket;
}

// The control plane makes a ticket, and the page exchanges it for a session as this member.
async function supports(staff, ticket) {
  await staff.goto(`${address}/orgs/acme-bakery#support=${ticket}`);
  await staff.getByText(/^Support: token:tok_\w+ acts as Alice\. Acme Bakery sees this/).waitFor();
  assert.equal(new URL(staff.url()).hash, '', 'the ticket does not stay in the address');
  await staff.getByText('1 open, 0 done').waitFor();
  await staff.getByRole('button', { name: 'Sign out' }).click();
  await staff.getByRole('heading', { name: 'Create an organisation' }).waitFor();
}

async function exportsTasks(page) {
  await section(page, 'Exports');
  await page.getByText('No exports yet').waitFor();
  await page.getByRole('button', { name: 'Export tasks' }).click();
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: /^Download/ }).click(),
  ]);
  assert.equal(download.suggestedFilename(), 'acme-bakery-tasks-1.csv');
  const [head, line, ...rest] = (await readFile(await download.path(), 'utf8')).split('\n');
  assert.equal(head, 'id,title,done,due_on,assignee,notes,created_at');
  assert.match(line, /^2,Order spelt flour,false,2027-01-31,Alice,'=25 kg,20\d\d-/);
  assert.deepEqual(rest, ['']);
  // Anyone who has the link gets the file, without a sign-in.
  const { path } = await page.evaluate(async () => {
    const headers = { 'content-type': 'application/json' };
    return (await fetch('/orgs/acme-bakery/api/exports/1/link', { method: 'POST', headers })).json();
  });
  const shared = await fetch(`${address}${path}`);
  assert.equal((await shared.text()).split('\n')[0], head);
}

async function invites(page, name) {
  await section(page, 'Members');
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByRole('combobox', { name: 'Role', exact: true }).selectOption({ label: 'Viewer' });
  await page.getByRole('button', { name: 'Invite' }).click();
  await page.getByLabel(`Role of ${name}`).waitFor();
  return page.getByLabel('Sign-in link', { exact: true }).inputValue();
}

async function viewsOnly(page, link) {
  assert.match(link, /\/orgs\/acme-bakery#sign-in=/, 'the token is in the part that browsers do not send');
  await page.goto(link);
  await row(page, 'Order spelt flour').waitFor();
  assert.equal(new URL(page.url()).hash, '', 'the token does not stay in the address');
  await page.getByText('Viewer').waitFor();
  assert.equal(await page.getByLabel('New task').count(), 0);
  assert.equal(await page.getByRole('link', { name: 'Members' }).count(), 0);
  assert.ok(await page.getByLabel('Done: Order spelt flour').isDisabled());
  const sheet = await openTask(page, 'Order spelt flour');
  await sheet.getByText('The mill closes at noon.').waitFor();
  assert.ok(await sheet.getByLabel('Title').isDisabled());
  for (const name of ['Save', 'Delete', 'Comment']) {
    assert.equal(await sheet.getByRole('button', { name, exact: true }).count(), 0, name);
  }
  await sheet.getByRole('button', { name: 'Close' }).click();
  // A request that was written by hand is refused, too.
  expected.push(403);
  const code = await page.evaluate(async () => {
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify({ title: 'forged' });
    return (await (await fetch('/orgs/acme-bakery/api/tasks', { method: 'POST', headers, body })).json()).code;
  });
  assert.equal(code, 'forbidden');
}

async function seesNothingOfOthers(page) {
  await signsUpTwice(page);
  await addTask(page, 'First of Globex');
  await addTask(page, 'Second of Globex');
  const tasks = await page.evaluate(async () => (await fetch('/orgs/globex/api/tasks')).json());
  assert.deepEqual(tasks.map(({ id, title }) => [id, title]), [[1, 'First of Globex'], [2, 'Second of Globex']]);
  expected.push(401);
  await page.goto(`${address}/orgs/acme-bakery`);
  await page.getByText('You are not signed in').waitFor();
  assert.equal(await page.getByText('flour').count(), 0);
  await page.goto(address);
  await page.getByRole('link', { name: 'Globex' }).click();
  await row(page, 'First of Globex').waitFor();
}

async function removesMember(alice, bob) {
  await alice.getByRole('listitem').filter({ hasText: 'Bob' }).getByRole('button', { name: 'Remove' }).click();
  await alice.getByRole('button', { name: 'Really remove?' }).click();
  await alice.getByLabel('Role of Bob').waitFor({ state: 'detached' });
  await bob.getByText('Live updates have ended').waitFor();
  expected.push(401);
  await bob.reload();
  await bob.getByText('You are not signed in').waitFor();
  expected.push(409);
  await alice.getByLabel('Role of Alice').selectOption({ label: 'Viewer' });
  await alice.getByText('An organisation needs a manager').waitFor();
  assert.equal(await alice.getByLabel('Role of Alice').inputValue(), 'manager');
}

async function signsOut(page) {
  const place = page.url();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Create an organisation' }).waitFor();
  expected.push(401);
  await page.goto(place);
  await page.getByText('You are not signed in').waitFor();
}
