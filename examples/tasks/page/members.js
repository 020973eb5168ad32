// The members: invite, change a role, make a sign-in link, remove. Only managers see this section.

import { clone, fill, initials, onClick, onSecondClick, onSubmit, report, toast, values } from './dom.js';

export async function showMembers(organisation, session) {
  const view = clone('members-view');
  const section = { organisation, session, view };
  const form = view.querySelector('.invite');
  onSubmit(form, async () => {
    const invitation = values(form);
    showLink(section, invitation.name, await organisation.post('members', invitation));
    form.reset();
    await load(section);
  });
  onClick(view.querySelector('.copy'), async () => {
    await navigator.clipboard.writeText(view.querySelector('.link-address').value);
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
  const path = `members/${encodeURIComponent(member.id)}`;
  const role = row.querySelector('.role');
  role.value = member.role;
  role.setAttribute('aria-label', `Role of ${member.name}`);
  role.addEventListener('change', () => changeRole(section, member, role));
  onClick(row.querySelector('.make-link'), async () => {
    showLink(section, member.name, await organisation.post(`${path}/link`));
  });
  onSecondClick(row.querySelector('.remove'), 'Really remove?', async () => {
    await organisation.delete(path);
    // Who has removed oneself has no members to load.
    if (isMe) return location.reload();
    toast('Removed', member.name);
    await load(section);
  });
  return row;
}

async function changeRole(section, member, role) {
  try {
    await section.organisation.put(`members/${encodeURIComponent(member.id)}`, { role: role.value });
    toast('Role changed', member.name);
    if (member.id === section.session.person) location.reload();
  } catch (problem) {
    role.value = member.role;
    report(problem);
  }
}

function showLink({ session, view }, name, { token }) {
  const link = view.querySelector('.link');
  link.hidden = false;
  fill(link, { '.link-title': `Send this link to ${name}` });
  link.querySelector('.link-address').value = `${location.origin}/orgs/${session.organisation}#sign-in=${token}`;
  link.querySelector('.link-title').focus();
}
