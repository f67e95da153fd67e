import sys, torch, json
torch.set_num_threads(1)
from xdyna.pipeline import XDynaPipeline
from xdyna.synthbench.cases import *
from xdyna.synthbench.generation import Animator
from xdyna.synthbench.measures import Truth
pipe=XDynaPipeline.from_pretrained("embedded",device="cpu")
import dataclasses; pipe.preset=dataclasses.replace(pipe.preset,shared_noise=.768); an=Animator(pipe,refine_face=False)
kept={}
orig=an.decoded
def dec(l):
    kept['lat']=l.clone(); return orig(l)
an.decoded=dec
enc=pipe.encode
def e(*a,**k):
    r=enc(*a,**k); kept['ref']=r.reference.clone(); return r
pipe.encode=e
part=int(sys.argv[1]); lo,hi=int(sys.argv[2]),int(sys.argv[3])
cases=list(range(lo,hi))
P=case_params(cases,frames=16)
import os
for i,c in enumerate(cases):
    if i%4!=(1 if part else 3) or os.path.exists(f'/work/scratch/lat768/{c}.pt'): continue
    p=case_params([c],frames=16)
    b=render_params(p,size=(256,256),device='cpu')
    t=Truth.of(b)
    if bool(t.travels[0]) : continue
    if not bool(t.human[0]) and bool(t.still[0]): pass
    v=an(own_job(b,[c]))
    torch.save(dict(lat=kept['lat'],ref=kept['ref'],video=(v*255).byte(),own=b.frames[:,0],ownmask=b.mask[:,0],body=known_points(b),truth=t),f'/work/scratch/lat768/{c}.pt')
    print(c,bool(t.human[0]),bool(t.still[0]),kept['lat'].shape,kept['ref'].shape,flush=True)
