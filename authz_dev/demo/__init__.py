"""`authz demo`: the guided tour. Real Envoy, real MSAL, an unmodified agent, an emulated Entra.

`command` is the verb and `show` the whole of it: `stage` starts everything on the `landscape`, in a
`folder`; `tour` lists the scenarios, `plays` says how each happens, `visitor` calls and looks, `report`
prints. A `guardian` cleans up where the demo is killed. `agent_app` and `orders_api` run as programs of their
own and know nothing of this project.
"""
