import sys, os, glob
me, other, rev = sys.argv[1], sys.argv[2], sys.argv[3]=='1'
extra = sys.argv[4:]
import xdyna.synthbench.run as R
orig=R.work_of
class Lazy(list):
    def __iter__(self):
        for w in list.__iter__(self):
            names=[f"{other}/cases/{n}" for n in self.names(w)]
            if all(os.path.exists(n) for n in names): continue
            yield w
    @staticmethod
    def names(w): return [f"{u}_{c:03d}.json" for u in w.units for c in w.cases]
def work_of(*a,**k):
    l=orig(*a,**k); l=sorted(l,key=lambda w:w.cases[0])
    return Lazy(reversed(l) if rev else l)
R.work_of=work_of
from xdyna.synthbench.options import SynthbenchOptions
from pathlib import Path
import argparse
kw={}
for e in extra:
    k,v=e.split('='); kw[k]=eval(v)
R.run(me,options=SynthbenchOptions(**kw))
