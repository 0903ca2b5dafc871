-- The edge cache: Envoy itself repeats what the authz service allowed a moment ago, without asking again.
--
-- This script stands in the filter chain twice, right before ext_authz and right after it. Both filters have
-- one name and take the script from one place, so they share its memory:
--
--   before  a live answer is known: apply it, and say so in metadata, which switches ext_authz off.
--           none is known: note what the answer will depend on, under a number, and let ext_authz ask.
--   after   the service allowed the request and says for how long that may be repeated: keep it.
--
-- The service alone decides what may be repeated and for how long. It names the headers that it set; their
-- values are read from the request as ext_authz has left it. So no token ever passes through metadata, and a
-- repeated answer changes a request exactly as the first one did. Any doubt, and any error in here, ends in
-- a Check. Nothing is logged.
--
-- Each worker thread of each listener has a memory of its own. docs/trade-offs.md says what that means.
--
-- Some answers hold a reference, which only the process that gave it knows. Such an answer names that process's
-- epoch. It is repeated only while answers of the same epoch keep coming, so that no reference outlives its process.

-- Where a route has rules, method and path decide too. Envoy's name of such a route ends in a mark, and its answers
-- are kept for one method and one path, query included. Its requests have no header by which a server would take
-- them for others: Envoy sends those to a route without this script.
--
-- Bounds. What is kept is kept in two generations: a full one becomes the old one, whose predecessor is
-- forgotten. So twice these numbers is the most that is held. Bytes are estimated, and since each entry
-- counts a fixed number beside its texts, their number is bounded as well.
local MAX_BYTES = 4 * 1024 * 1024      -- of answers
local MAX_ASKED_BYTES = 1024 * 1024    -- of questions whose answer has not come
local ENTRY_BYTES = 1024
local MAX_VALUE_BYTES = 16 * 1024 + 64 -- of a header that is kept
local MAX_HOST_BYTES = 255
local MAX_HEADERS = 96                 -- that one answer sets, and removes
local MAX_TTL_MS = 3600 * 1000
local PATIENCE_MS = 60 * 1000          -- an answer that takes longer is not kept
local MAX_EPOCH_BYTES = 64
local MAX_TARGET_BYTES = 2048          -- of the path of a request under rules
local RULED = string.byte("#")

-- Of answers with a reference, counted from when the last answer of their epoch was asked for: one request is asked
-- about, so that the others may be repeated; and none is repeated. No process starts in less than the second time.
local ASK_AGAIN_MS = 250
local SILENT_MS = 500

local CHECK = "envoy.filters.http.ext_authz"
local EDGE = "authz.edge"

local function generation()
  return {bytes = 0, ends = 0, items = {}}
end

-- Answers, by route (under rules: with method and path), host and (where it counts) value of Authorization.
local young, old = generation(), generation()
-- Questions under way, by number.
local asked_late, asked_early = generation(), generation()
local last_number = 0
-- The latest time seen, in milliseconds.
local latest = 0
-- The newest epoch that an answer named, when that answer was asked for, and when to ask again.
local epoch, heard_at, ask_at = nil, 0, 0

-- Note the time. If the clock was set back, nobody can tell what has ended: forget everything.
local function keep_time(now)
  if now < latest then
    young, old = generation(), generation()
    asked_late, asked_early = generation(), generation()
    epoch, heard_at, ask_at = nil, 0, 0
  end
  latest = now
end

-- Note which process has answered a question that was asked at some time.
local function hear(named, at)
  -- Answers may overtake one another: what was asked later tells who is there.
  if at < heard_at then return end
  epoch, heard_at, ask_at = named, at, at + ASK_AGAIN_MS
end

-- Whether the process that gave the reference in an answer is there still. Every answer without one is current.
local function is_current(entry, now)
  if entry.epoch == nil then return true end
  if entry.epoch ~= epoch or now >= heard_at + SILENT_MS then return false end
  if now < ask_at then return true end
  -- This request asks, for all that come until it is answered.
  ask_at = heard_at + SILENT_MS
  return false
end

-- Forget a generation all of which has ended.
local function drop_ended(now)
  if old.bytes > 0 and now >= old.ends then old = generation() end
  if young.bytes > 0 and now >= young.ends then young = generation() end
  if asked_early.bytes > 0 and now >= asked_early.ends then asked_early = generation() end
  if asked_late.bytes > 0 and now >= asked_late.ends then asked_late = generation() end
end

local function is_single(value)
  -- Envoy joins repeated headers by a comma, which no bearer value contains.
  return value ~= "" and not value:find(",", 1, true)
end

-- What a request with baggage is told apart by. Baggage may hold a reference to the user, or be changed by the
-- answer: such a request is like no other but its own repetition. No header contains a line break.
local function with_baggage(bearer, baggage)
  return (bearer or "") .. "\n" .. baggage
end

local function find_in(answers, place, host, bearer, baggage)
  if place == nil then return nil end
  local hosts = answers.items[place]
  local known = hosts and hosts[host]
  if known == nil then return nil end
  if baggage ~= nil then return known.by[with_baggage(bearer, baggage)] end
  if bearer == nil then return known.any end
  local entry = known.by[bearer]
  if entry == nil and known.any ~= nil and is_single(bearer) then return known.any end
  return entry
end

-- Keep an answer for a place, a host and, unless it is nil, a value of Authorization.
local function keep(entry, place, host, bearer)
  if young.bytes + entry.bytes > MAX_BYTES then
    old, young = young, generation()
  end
  local hosts = young.items[place]
  if hosts == nil then
    hosts = {}
    young.items[place] = hosts
  end
  local known = hosts[host]
  if known == nil then
    known = {by = {}}
    hosts[host] = known
  end
  local before
  if bearer == nil then
    before, known.any = known.any, entry
  else
    before, known.by[bearer] = known.by[bearer], entry
  end
  if before ~= nil then young.bytes = young.bytes - before.bytes end
  young.bytes = young.bytes + entry.bytes
  if entry.ends > young.ends then young.ends = entry.ends end
end

-- Return the key by which requests under rules differ, beside host and headers; nil if there is none. No method or
-- path contains a line break.
local function under_rules(route, headers)
  local method, target = headers:get(":method"), headers:get(":path")
  if method == nil or target == nil or #target > MAX_TARGET_BYTES then return nil end
  return route .. "\n" .. method .. "\n" .. target
end

-- Note a question and return its number; 0 if its answer cannot be kept.
local function note(route, place, host, bearer, baggage, now)
  if place == nil or host == nil or #host > MAX_HOST_BYTES then return 0 end
  if bearer ~= nil and (#bearer > MAX_VALUE_BYTES or not is_single(bearer)) then return 0 end
  if baggage ~= nil and #baggage > MAX_VALUE_BYTES then return 0 end
  local bytes = ENTRY_BYTES + #place + #host + (bearer and #bearer or 0) + (baggage and #baggage or 0)
  if asked_late.bytes + bytes > MAX_ASKED_BYTES then
    asked_early, asked_late = asked_late, generation()
  end
  last_number = last_number + 1
  local question = {route = route, place = place, host = host, at = now, bytes = bytes}
  question.bearer, question.baggage = bearer, baggage
  asked_late.items[last_number] = question
  asked_late.bytes = asked_late.bytes + bytes
  asked_late.ends = now + PATIENCE_MS
  return last_number
end

-- Take back the question of a number; nil if it was too long ago, or not noted.
local function take(number)
  local questions = asked_late
  local question = questions.items[number]
  if question == nil then
    questions = asked_early
    question = questions.items[number]
    if question == nil then return nil end
  end
  questions.items[number] = nil
  questions.bytes = questions.bytes - question.bytes
  return question
end

-- A header's name (RFC 9110 section 5.1), as Envoy writes it: in lower case.
local NAME = "^[a-z0-9!#$%%&'*+.^_`|~-]+$"

-- Return a list of header names as it came, or nil if it is anything else.
local function names_in(list)
  if type(list) ~= "table" then return nil end
  local count = 0
  for _, name in pairs(list) do
    count = count + 1
    -- A map, or a list with a gap, has nothing at one of the places up to its size.
    if list[count] == nil or count > MAX_HEADERS then return nil end
    if type(name) ~= "string" or not name:find(NAME) or name == "host" then return nil end
  end
  return list
end

local function has(list, name)
  for i = 1, #list do
    if list[i] == name then return true end
  end
  return false
end

-- Return the entry for what the service allowed a caller, or anyone if it is nil; nil if it must not or cannot
-- be repeated.
local function entry_of(headers, edge, question, bearer)
  local bytes = question.bytes
  local names, remove = names_in(edge.set), names_in(edge.remove)
  if names == nil or remove == nil then return nil end
  -- What became of Authorization must have been named, or a repetition would let pass the value that the
  -- service took away. And what is repeated to anyone must say what becomes of it: each brings another one.
  if not (has(names, "authorization") or has(remove, "authorization")) then
    if bearer == nil or headers:get("authorization") ~= bearer then return nil end
  end
  local set = {}
  for _, name in ipairs(names) do
    local value = headers:get(name)
    if value == nil or #value > MAX_VALUE_BYTES then return nil end
    set[#set + 1] = name
    set[#set + 1] = value
    bytes = bytes + #name + #value
  end
  for _, name in ipairs(remove) do
    if headers:get(name) ~= nil then return nil end
    bytes = bytes + #name
  end
  return {ends = question.at + edge.ttl_ms, bytes = bytes, set = set, remove = remove}
end

-- After ext_authz has let the request pass.
local function learn(handle, marks, number)
  local question = number and take(number)
  if question == nil then return end
  local told = marks:get(CHECK)
  local edge = told and told.edge
  if type(edge) ~= "table" then return end
  -- Envoy's routes have the names of the service's. Where they do not, nothing is kept: what was asked for
  -- one route is never repeated on another.
  if told.decision ~= "allow" then return end
  -- Nor is what a rule allowed, where others would not be told apart from it.
  if told.rule == nil then
    if told.route ~= question.route or question.place ~= question.route then return end
  elseif type(told.rule) ~= "string" or question.route ~= told.route .. "#" then
    return
  end
  local ttl = edge.ttl_ms
  if type(ttl) ~= "number" or not (ttl > 0 and ttl <= MAX_TTL_MS) then return end
  local bearer, key = question.bearer, question.bearer
  if question.baggage ~= nil then
    key = with_baggage(bearer, question.baggage)
  elseif edge.parts == "" then
    bearer, key = nil, nil
  elseif bearer == nil then
    return
  end
  if edge.parts ~= "" and edge.parts ~= "authorization" then return end
  local named = edge.epoch
  if named ~= nil and (type(named) ~= "string" or named == "" or #named > MAX_EPOCH_BYTES) then return end
  local now = handle:timestamp()
  keep_time(now)
  -- Time counts from the question on: the answer was right at some moment after it.
  if now < question.at then return end
  local entry = entry_of(handle:headers(), edge, question, bearer)
  if named ~= nil then hear(named, question.at) end
  if entry ~= nil then
    entry.epoch = named
    entry.rule = told.rule
    keep(entry, question.place, question.host, key)
  end
end

-- Before ext_authz: repeat an answer, or note the question.
local function look(handle, stream, marks)
  local route, headers, now = stream:routeName(), handle:headers(), handle:timestamp()
  keep_time(now)
  local host, bearer = headers:get(":authority"), headers:get("authorization")
  local baggage, place = headers:get("baggage"), route
  if route:byte(-1) == RULED then place = under_rules(route, headers) end
  local entry = find_in(young, place, host, bearer, baggage)
    or find_in(old, place, host, bearer, baggage)
  if entry == nil or now >= entry.ends or not is_current(entry, now) then
    drop_ended(now)
    marks:set(EDGE, "asked", note(route, place, host, bearer, baggage, now))
    return
  end
  local set, remove = entry.set, entry.remove
  for i = 1, #set, 2 do headers:replace(set[i], set[i + 1]) end
  for i = 1, #remove do headers:remove(remove[i]) end
  if entry.rule ~= nil then marks:set(EDGE, "rule", entry.rule) end
  -- The very last step, since it switches ext_authz off. An error before it ends in a Check.
  marks:set(EDGE, "decision", "allow")
end

function envoy_on_request(handle)
  local stream = handle:streamInfo()
  local marks = stream:dynamicMetadata()
  local mark = marks:get(EDGE)
  if mark == nil then
    look(handle, stream, marks)
  elseif mark.decision == nil then
    learn(handle, marks, mark.asked)
  end
end
