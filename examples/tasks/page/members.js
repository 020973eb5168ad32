// The members: invite, change a role, make a sign-in link, remove. Only managers see this section.

import { clone, fill, initials, onClick, onSecondClick, onSubmit, report, toast, values } from './dom.js';
import { forgetKey, keyFor } from './form-key.js';

export async function showMembers(organisation, session) {
  const view = clone('members-view');
  const section = { organisation, session, view };
  const form = view.querySelector('.invite');
  onSubmit(form, async () => {
    const invitation = values(form);
    const key = keyFor('invitation', invitation);
    await showLink(section, invitation.name, await organisation.post('members', { key, ...invitation }));
    forgetKey('invitation');
    form.reset();
    await load(section);
  });
  onClick(view.querySelector('.copy'), async () => {
    const address = view.querySelector('.link-address');
    // A page on plain HTTP has no clipboard. The person copies the selected text.
    if (!navigator.clipboard) return address.select();
    await navigator.clipboard.writeText(address.value);
    toast('Copied', 'The link is in the clipboard.');
  });
  await load(section);
  return view;
}

async function load(section) {
  const members = await section.organisation.get('members');
  section.view.querySelector('.member-rows').replaceChildren(...members.map((member) => memberRow(section, member)));
}

function memberRow(section, member) {
  const { organisation, session } = section;
  const row = fill(clone('member-row'), { '.member-name': member.name, '.avatar': initials(member.name) });
  const isMe = member.id === session.person;
  row.querySelector('.you').hidden = !isMe;
  const path = memberPath(member);
  const role = row.querySelector('.role');
  role.value = member.role;
  role.setAttribute('aria-label', `Role of ${member.name}`);
  role.addEventListener('change', () => changeRole(section, member, role));
  onClick(row.querySelector('.make-link'), async () => {
    await showLink(section, member.name, await organisation.post(`${path}/link`));
  });
  onSecondClick(row.querySelector('.remove'), 'Really remove?', async () => {
    await organisation.delete(path);
    // A person who left can no longer load the members.
    if (isMe) return location.reload();
    toast('Removed', member.name);
    await load(section);
  });
  return row;
}

async function changeRole(section, member, role) {
  try {
    await section.organisation.put(memberPath(member), { role: role.value });
    member.role = role.value;
    toast('Role changed', member.name);
    if (member.id === section.session.person) location.reload();
  } catch (problem) {
    role.value = member.role;
    report(problem);
  }
}

const memberPath = ({ id }) => `members/${encodeURIComponent(id)}`;

async function showLink({ organisation, session, view }, name, { member, token }) {
  // A new link ends the sessions of its member. This browser goes on with the new one.
  if (member === session.person) await organisation.post('session', { token });
  const link = view.querySelector('.link');
  link.hidden = false;
  fill(link, { '.link-title': `Send this link to ${name}` });
  link.querySelector('.link-address').value = `${location.origin}/orgs/${session.organisation}#sign-in=${token}`;
  link.querySelector('.link-title').focus();
}
