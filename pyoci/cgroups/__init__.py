"""Control groups: which layout the host has, where conmon and the container live, ending and removing what a container left (cgroups(7))."""

from pyoci.cgroups.detection import V2 as V2
from pyoci.cgroups.detection import Cgroups as Cgroups
from pyoci.cgroups.detection import is_populated as is_populated
from pyoci.cgroups.detection import parse_mountinfo as parse_mountinfo
from pyoci.cgroups.detection import read as read
from pyoci.cgroups.detection import read_control as read_control
from pyoci.cgroups.detection import systemd_directory as systemd_directory
from pyoci.cgroups.placement import CGROUPFS as CGROUPFS
from pyoci.cgroups.placement import PREFIX as PREFIX
from pyoci.cgroups.placement import SEPARATE as SEPARATE
from pyoci.cgroups.placement import SHARED as SHARED
from pyoci.cgroups.placement import SYSTEMD as SYSTEMD
from pyoci.cgroups.placement import Manager as Manager
from pyoci.cgroups.placement import Place as Place
from pyoci.cgroups.trees import clear as clear
from pyoci.cgroups.trees import kill_all as kill_all
from pyoci.cgroups.trees import members_below as members_below
from pyoci.cgroups.trees import remove as remove
from pyoci.cgroups.trees import signal_all as signal_all
