# SPDX-License-Identifier: Apache-2.0
"""The state machines of a spanning tree port (802.1D-2004, 17.23 to 17.31), under the names of the standard.

Each function makes the transitions that are due and says whether there were any. What a machine's state is follows from the variables for
most of them; where it does not, the port has a flag for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from polycube.cubes.bridge.bpdu import Bpdu, BpduType, Flag
from polycube.cubes.bridge.port import MIGRATE_TIME, Info, Received, Role, TreePort

if TYPE_CHECKING:
    from polycube.cubes.bridge.tree import Tree

TX_HOLD_COUNT = 6
ACTIVE_ROLES = (Role.ROOT, Role.DESIGNATED)


def begin(tree: Tree, port: TreePort) -> None:
    """The initial state of all machines."""
    times = tree.root_times
    port.edge_delay = port.mdelay_while = MIGRATE_TIME
    port.send_rstp, port.sensing, port.selecting_stp = tree.settings.rapid, False, False
    port.oper_edge = port.admin_edge
    port.info_is, port.reselect, port.selected = Info.DISABLED, True, False
    port.proposing = port.proposed = port.agree = port.agreed = port.disputed = port.synced = port.updt_info = False
    port.role = port.selected_role = Role.DISABLED
    port.learn = port.forward = port.learning = port.forwarding = False
    port.sync = port.re_root = True
    port.rr_while, port.fd_while, port.rb_while = times.forward_delay, times.max_age, 0
    port.designated_times = times
    port.new_info, port.tx_count, port.hello_when = True, 0, times.hello
    port.tc_while, port.tc_ack, port.tc_active, port.tc_inactive = 0, False, False, True
    port.waiting.clear()
    port.message = None


def receive(tree: Tree, port: TreePort) -> bool:
    """Port receive, 17.23."""
    if not port.enabled:
        if not port.waiting and port.edge_delay == MIGRATE_TIME and port.message is None:
            return False
        port.waiting.clear()
        port.message = None
        port.rcvd_rstp = port.rcvd_stp = False
        port.edge_delay = MIGRATE_TIME
        return True
    if not port.waiting or port.message is not None:
        return False
    port.message = port.waiting.pop(0)
    if port.message.type is BpduType.RST:
        port.rcvd_rstp = True
    else:
        port.rcvd_stp = True
    port.oper_edge = False
    port.edge_delay = MIGRATE_TIME
    return True


def migrate(tree: Tree, port: TreePort) -> bool:
    """Port protocol migration, 17.24."""
    if port.selecting_stp:
        if port.mdelay_while and port.enabled:
            return False
        port.selecting_stp, port.sensing = False, True
        port.rcvd_rstp = port.rcvd_stp = False
        return True
    if port.sensing:
        if not port.enabled or (tree.settings.rapid and not port.send_rstp and port.rcvd_rstp):
            port.sensing = False
            port.send_rstp, port.mdelay_while = tree.settings.rapid, MIGRATE_TIME
            return True
        if port.send_rstp and port.rcvd_stp:
            port.selecting_stp, port.sensing = True, False
            port.send_rstp, port.mdelay_while = False, MIGRATE_TIME
            return True
        return False
    if not port.enabled and port.mdelay_while != MIGRATE_TIME:
        port.send_rstp, port.mdelay_while = tree.settings.rapid, MIGRATE_TIME
        return True
    if port.enabled and port.mdelay_while == 0:
        port.sensing = True
        port.rcvd_rstp = port.rcvd_stp = False
        return True
    return False


def detect_bridge(tree: Tree, port: TreePort) -> bool:
    """Bridge detection, 17.25: nothing heard for a while means that there is no bridge."""
    if port.oper_edge:
        if port.enabled or port.admin_edge:
            return False
        port.oper_edge = False
        return True
    quiet = port.edge_delay == 0 and port.send_rstp and port.proposing
    if quiet or (not port.enabled and port.admin_edge):
        port.oper_edge = True
        return True
    return False


def inform(tree: Tree, port: TreePort) -> bool:
    """Port information, 17.27."""
    if not port.enabled:
        if port.info_is is Info.DISABLED:
            return False
        port.message = None
        port.proposing = port.proposed = port.agree = port.agreed = False
        port.rcvd_info_while = 0
        port.info_is, port.reselect, port.selected = Info.DISABLED, True, False
        return True
    aged = port.info_is is Info.RECEIVED and not port.rcvd_info_while and not port.updt_info and port.message is None
    if port.info_is is Info.DISABLED or aged:
        port.info_is, port.reselect, port.selected = Info.AGED, True, False
        return True
    if port.selected and port.updt_info:
        _update(tree, port)
        return True
    if port.message is not None and not port.updt_info:
        message, port.message = port.message, None
        _take(tree, port, message)
        return True
    return False


def _update(tree: Tree, port: TreePort) -> None:
    port.proposing = port.proposed = False
    same_root = port.designated_priority.root == port.port_priority.root  # beyond the standard, see _take
    port.agreed = port.agreed and port.info_is is Info.MINE and same_root and port.designated_priority <= port.port_priority
    port.synced = port.synced and port.agreed
    port.port_priority, port.port_times = port.designated_priority, port.designated_times
    port.updt_info, port.info_is, port.new_info = False, Info.MINE, True


def _take(tree: Tree, port: TreePort, message: Bpdu) -> None:
    kind = tree.classify(port, message)
    if kind is Received.SUPERIOR_DESIGNATED:
        port.agreed = port.proposing = False
        _record_proposal(port, message)
        _set_tc_flags(port, message)
        port.agree = port.agree and port.info_is is Info.RECEIVED and message.vector <= port.port_priority
        port.port_priority = message.vector
        port.port_times = message.times._replace(hello=max(message.times.hello, 1))
        _update_rcvd_info_while(port)
        port.info_is, port.reselect, port.selected = Info.RECEIVED, True, False
    elif kind is Received.REPEATED_DESIGNATED:
        _record_proposal(port, message)
        _set_tc_flags(port, message)
        _update_rcvd_info_while(port)
    elif kind is Received.INFERIOR_DESIGNATED:
        if message.type is BpduType.RST and message.flags & Flag.LEARNING:
            port.disputed, port.agreed = True, False
        port.new_info = True  # 802.1D-1998, 8.6.8: who thinks less of the tree is told at once
    elif kind is Received.NOT_DESIGNATED:
        # Beyond the standard: of the same root. An agreement to an earlier message must not open a port while a root that is gone is still
        # talked about (Elmeleegy, Cox, Ng: On Count-to-Infinity Induced Forwarding Loops in Ethernet Networks, INFOCOM 2006).
        if tree.settings.rapid and message.flags & Flag.AGREEMENT and message.vector.root == port.port_priority.root:
            port.agreed, port.proposing = True, False
        else:
            port.agreed = False
        _set_tc_flags(port, message)
    elif message.type is BpduType.TCN:
        _set_tc_flags(port, message)


def _record_proposal(port: TreePort, message: Bpdu) -> None:
    if message.flags & Flag.PROPOSAL and message.type is BpduType.RST:
        port.proposed = True


def _set_tc_flags(port: TreePort, message: Bpdu) -> None:
    if message.type is BpduType.TCN:
        port.rcvd_tcn = True
        return
    port.rcvd_tc = port.rcvd_tc or bool(message.flags & Flag.TOPOLOGY_CHANGE)
    port.rcvd_tc_ack = port.rcvd_tc_ack or (message.type is BpduType.CONFIG and bool(message.flags & Flag.TOPOLOGY_CHANGE_ACK))


def _update_rcvd_info_while(port: TreePort) -> None:
    times = port.port_times
    port.rcvd_info_while = 3 * times.hello if times.message_age + 1 <= times.max_age else 0


def transit(tree: Tree, port: TreePort) -> bool:
    """Port role transitions, 17.29."""
    if not port.selected or port.updt_info:
        return False
    if port.role is not port.selected_role:
        port.role = port.selected_role
        if port.role is Role.ROOT:
            port.rr_while = port.designated_times.forward_delay
        elif port.role is not Role.DESIGNATED:
            port.learn = port.forward = False
            port.synced = False
        return True
    return _TRANSITIONS[port.role](tree, port)


def _disabled(tree: Tree, port: TreePort) -> bool:
    if port.learning or port.forwarding:
        return False
    done = port.synced and not (port.sync or port.re_root) and port.fd_while == port.designated_times.max_age
    port.fd_while, port.rr_while, port.synced = port.designated_times.max_age, 0, True
    port.sync = port.re_root = False
    return not done


def _root(tree: Tree, port: TreePort) -> bool:
    quick = tree.settings.rapid and tree.re_rooted(port) and port.rb_while == 0
    if port.proposed and not port.agree:
        _sync_all(tree)
        port.proposed = False
    elif (tree.all_synced(port) and not port.agree) or (port.proposed and port.agree):
        port.proposed = port.sync = False
        port.agree = port.new_info = True
    elif (port.agreed and not port.synced) or (port.sync and port.synced):
        port.synced, port.sync = True, False
    elif not port.forward and port.rb_while == 0 and not port.re_root:
        for one in tree.ports.values():
            one.re_root = True
    elif port.rr_while != port.designated_times.forward_delay:
        port.rr_while = port.designated_times.forward_delay
    elif port.re_root and port.forward:
        port.re_root = False
    elif (port.fd_while == 0 or quick) and not port.learn:
        port.fd_while, port.learn = tree.forward_delay(port), True
    elif (port.fd_while == 0 or quick) and not port.forward:
        port.fd_while, port.forward = 0, True
    else:
        return False
    return True


def _designated(tree: Tree, port: TreePort) -> bool:
    ready = (port.fd_while == 0 or port.agreed or port.oper_edge) and (port.rr_while == 0 or not port.re_root) and not port.sync
    retreat = (port.sync and not port.synced) or (port.re_root and port.rr_while != 0) or port.disputed
    if not (port.forward or port.agreed or port.proposing or port.oper_edge):
        port.proposing = port.new_info = True
        port.edge_delay = MIGRATE_TIME
    elif (
        (not port.learning and not port.forwarding and not port.synced)
        or ((port.agreed or port.oper_edge) and not port.synced)
        or (port.sync and port.synced)
    ):
        port.rr_while, port.synced, port.sync = 0, True, False
    elif port.rr_while == 0 and port.re_root:
        port.re_root = False
    elif retreat and not port.oper_edge and (port.learn or port.forward):
        port.learn = port.forward = port.disputed = False
        port.fd_while = tree.forward_delay(port)
    elif ready and not port.learn:
        port.learn, port.fd_while = True, tree.forward_delay(port)
    elif ready and not port.forward:
        port.forward, port.fd_while, port.agreed = True, 0, port.send_rstp
    else:
        return False
    return True


def _alternate(tree: Tree, port: TreePort) -> bool:
    """Also of a backup port."""
    if port.learning or port.forwarding:
        return False
    if port.proposed and not port.agree:
        _sync_all(tree)
        port.proposed = False
    elif (tree.all_synced(port) and not port.agree) or (port.proposed and port.agree):
        port.proposed = False
        port.agree = port.new_info = True
    elif port.fd_while != tree.forward_delay(port) or port.sync or port.re_root or not port.synced:
        port.fd_while, port.synced, port.rr_while = tree.forward_delay(port), True, 0
        port.sync = port.re_root = False
    elif port.role is Role.BACKUP and port.rb_while != 2 * port.designated_times.hello:
        port.rb_while = 2 * port.designated_times.hello
    else:
        return False
    return True


_TRANSITIONS: dict[Role, Callable[[Tree, TreePort], bool]] = {
    Role.DISABLED: _disabled,
    Role.ROOT: _root,
    Role.DESIGNATED: _designated,
    Role.ALTERNATE: _alternate,
    Role.BACKUP: _alternate,
}


def _sync_all(tree: Tree) -> None:
    for port in tree.ports.values():
        port.sync = True


def change_state(tree: Tree, port: TreePort) -> bool:
    """Port state transition, 17.30."""
    learning, forwarding = port.learn, port.learn and port.forward
    if (port.learning, port.forwarding) == (learning, forwarding):
        return False
    port.learning, port.forwarding = learning, forwarding
    return True


def note_change(tree: Tree, port: TreePort) -> bool:
    """Topology change, 17.31."""
    told = port.rcvd_tc or port.rcvd_tcn or port.rcvd_tc_ack or port.tc_prop
    if port.tc_inactive:
        port.rcvd_tc = port.rcvd_tcn = port.rcvd_tc_ack = port.tc_prop = False
        if port.learn:
            port.tc_inactive = False
        return port.learn
    if not port.tc_active:
        if port.role in ACTIVE_ROLES and port.forward and not port.oper_edge:
            port.tc_active = True
            tree.changes += 1
            tree.new_tc_while(port)
            _propagate(tree, port)
            port.new_info = True
            return True
        port.rcvd_tc = port.rcvd_tcn = port.rcvd_tc_ack = port.tc_prop = False
        if port.role not in ACTIVE_ROLES and not (port.learn or port.learning):
            port.tc_inactive = port.fdb_flush = True
            port.tc_while, port.tc_ack = 0, False
            return True
        return told
    return _while_active(tree, port)


def _while_active(tree: Tree, port: TreePort) -> bool:
    if port.role not in ACTIVE_ROLES or port.oper_edge:
        port.tc_active = False
    elif port.rcvd_tcn or port.rcvd_tc:
        if port.rcvd_tcn:
            tree.new_tc_while(port)
            port.tc_ack = port.tc_ack or port.role is Role.DESIGNATED
        port.rcvd_tcn = port.rcvd_tc = False
        _propagate(tree, port)
    elif port.tc_prop:
        tree.new_tc_while(port)
        port.fdb_flush, port.tc_prop = True, False
    elif port.rcvd_tc_ack:
        port.tc_while, port.rcvd_tc_ack = 0, False
    else:
        return False
    return True


def _propagate(tree: Tree, port: TreePort) -> None:
    for other in tree.others(port):
        other.tc_prop = True


def transmit(tree: Tree, port: TreePort) -> bool:
    """Port transmit, 17.26."""
    if not port.enabled or not port.selected or port.updt_info:
        return False
    if port.hello_when == 0:
        port.hello_when = max(port.designated_times.hello, 1)
        port.new_info = port.new_info or port.role is Role.DESIGNATED or (port.role is Role.ROOT and port.tc_while != 0)
        return True
    if not port.new_info or port.tx_count >= TX_HOLD_COUNT:
        return False
    if not port.send_rstp and port.role not in ACTIVE_ROLES:
        port.new_info = False
        return False
    port.new_info = False
    if port.send_rstp or port.role is Role.DESIGNATED or port.tc_while:
        tree.transmit(port)
        port.tx_count += 1
        port.tc_ack = False
    return True


BEFORE = (receive, migrate, detect_bridge, inform)
AFTER = (transit, change_state, note_change, transmit)
